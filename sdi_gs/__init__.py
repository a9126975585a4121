"""sdi-gs: a sentence in, a 3D object out, by Score Distillation via Inversion.

The names in ``__all__`` are the public API, described in ``docs/api.md`` and used in ``examples/``. Each is imported
when it is first used, so that ``import sdi_gs`` and ``sdi-gs --help`` load no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sdi_gs.cameras import CameraBatch, orbit_cameras, sample_cameras
    from sdi_gs.configs.presets import preset
    from sdi_gs.contracts import DiffusionPrior, RenderOutput, Representation, Scene, StepReport
    from sdi_gs.errors import UserError
    from sdi_gs.evaluation.evaluate import evaluate
    from sdi_gs.guidance.noise_sources.protocol import NoiseRequest, NoiseSource
    from sdi_gs.guidance.score_distillation import distill
    from sdi_gs.priors.catalog import load_prior
    from sdi_gs.representations.gaussians import Gaussians
    from sdi_gs.representations.parameter_scene import ParameterScene
    from sdi_gs.runs.export import export
    from sdi_gs.runs.launch import launch
    from sdi_gs.runs.loading import load
    from sdi_gs.runs.loop import run
    from sdi_gs.runs.prepare import prepare_resume, prepare_run
    from sdi_gs.runs.request import RunRequest
    from sdi_gs.settings.run import RunConfig
    from sdi_gs.training.trainer import Trainer

__version__ = "0.2.0"

__all__ = [
    "CameraBatch",
    "DiffusionPrior",
    "Gaussians",
    "NoiseRequest",
    "NoiseSource",
    "ParameterScene",
    "RenderOutput",
    "Representation",
    "RunConfig",
    "RunRequest",
    "Scene",
    "StepReport",
    "Trainer",
    "UserError",
    "distill",
    "evaluate",
    "export",
    "launch",
    "load",
    "load_prior",
    "orbit_cameras",
    "prepare_resume",
    "prepare_run",
    "preset",
    "run",
    "sample_cameras",
]

_MODULES = {
    "sdi_gs.cameras": ("CameraBatch", "orbit_cameras", "sample_cameras"),
    "sdi_gs.configs.presets": ("preset",),
    "sdi_gs.contracts": ("DiffusionPrior", "RenderOutput", "Representation", "Scene", "StepReport"),
    "sdi_gs.errors": ("UserError",),
    "sdi_gs.evaluation.evaluate": ("evaluate",),
    "sdi_gs.guidance.noise_sources.protocol": ("NoiseRequest", "NoiseSource"),
    "sdi_gs.guidance.score_distillation": ("distill",),
    "sdi_gs.priors.catalog": ("load_prior",),
    "sdi_gs.representations.gaussians": ("Gaussians",),
    "sdi_gs.representations.parameter_scene": ("ParameterScene",),
    "sdi_gs.runs.export": ("export",),
    "sdi_gs.runs.launch": ("launch",),
    "sdi_gs.runs.loading": ("load",),
    "sdi_gs.runs.loop": ("run",),
    "sdi_gs.runs.prepare": ("prepare_resume", "prepare_run"),
    "sdi_gs.runs.request": ("RunRequest",),
    "sdi_gs.settings.run": ("RunConfig",),
    "sdi_gs.training.trainer": ("Trainer",),
}
"""Where each public name lives; a test keeps it equal to the imports above."""


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'sdi_gs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

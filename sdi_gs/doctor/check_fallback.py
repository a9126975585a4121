"""Check "fallback": a real step that runs out of memory must be repeated on a lower tier.

The process is limited to less memory than a step needs. The run must continue by itself on a lower tier, with the same
result as a run that used that tier from this step on.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.doctor.check_setup import CheckSetup
from sdi_gs.doctor.distilled import PROMPT
from sdi_gs.doctor.rows import Row, at_least, at_most, shown, skipped
from sdi_gs.doctor.sd21_models import load_sd21, weights_at_hand
from sdi_gs.runs.console_observer import line_of
from sdi_gs.runs.events import Event, TierLowered
from sdi_gs.runs.folder import create_run_folder_at
from sdi_gs.runs.loop import train
from sdi_gs.settings.outputs import OutputConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tree import config_to_dict
from sdi_gs.training.trainer import Trainer

STEPS = 2
"""Steps taken while memory is short."""
SHARE_LEFT = 0.75
"""Share of a step's memory beyond weights and scene: too little for the step, enough for half of its views at once."""
MOVED_LIMIT = 0.1
"""Largest distance between the two runs, as a share of how far the positions moved. Sums in no fixed order, and other
convolution algorithms when memory is short, change the last digits; Adam's first steps are signs, which can flip."""
LOWEST_TIERS = ("12", "8")
"""No tier below these needs notably less memory."""

HoldTo = Callable[[torch.device, float], AbstractContextManager[None]]


def check_fallback(setup: CheckSetup, *, hold_to: HoldTo | None = None) -> Iterator[Row]:
    """Yield five rows; ``hold_to`` replaces ``held_to``, which supports CUDA only."""
    what = "a step that runs out of memory"
    config, tier = setup.stable_diffusion_on_tier()
    if hold_to is None and setup.device.type != "cuda":
        yield skipped(what, "a process can be held to less memory on CUDA only")
        return
    if tier is not None and tier.name in LOWEST_TIERS:
        yield skipped(what, f"tier {tier.name}, which this card gets, has none below it that needs notably less")
        return
    dtype = torch.float16 if setup.device.type == "cuda" else torch.float32
    prior = load_sd21(weights_at_hand(miniature=setup.size.miniature), device=setup.device, dtype=dtype)
    quiet = OutputConfig(preview_every=0, checkpoint_every=0, turntable_frames=0)
    # Growth would amplify differences of the last digits.
    densify = replace(config.densify, enabled=False)
    config = replace(config, prompt=PROMPT, outputs=quiet, densify=densify)
    yield from _rows(setup, config, prior, hold_to or held_to)


@contextmanager
def held_to(device: torch.device, bytes_at_most: float) -> Iterator[None]:
    """Limit torch's allocator on a CUDA device to that many bytes, as on a smaller card."""
    torch.cuda.empty_cache()
    # Torch needs an index here, and "cuda" has none.
    index = torch.cuda.current_device() if device.index is None else device.index
    whole = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(bytes_at_most / whole, 1.0), index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)


def _rows(setup: CheckSetup, config: RunConfig, prior: DiffusionPrior, hold_to: HoldTo) -> Iterator[Row]:
    trainer = Trainer(config, prior, device=setup.device)
    trainer.step = config.steps // 2
    room = _room(trainer)
    before, events = copy.deepcopy(trainer.state()), list[Event]()
    last = trainer.step + STEPS
    with tempfile.TemporaryDirectory() as temporary, hold_to(setup.device, room):
        folder = create_run_folder_at(Path(temporary) / "run")
        folder.write_config(config_to_dict(config))
        train(trainer, folder, observers=[events.append], should_stop=lambda: trainer.step >= last)
    lowered = [event for event in events if isinstance(event, TierLowered)]
    yield shown("memory left to the run", room / 2**20, unit="MiB")
    yield at_least("times that it went a tier down", float(len(lowered)), 1.0, note=" ".join(map(line_of, lowered)))
    yield at_least("steps taken all the same", float(trainer.step - before["step"]), float(STEPS))

    planned = Trainer(trainer.config, prior, device=setup.device)
    planned.load_state(copy.deepcopy(before))
    for _ in range(STEPS):
        planned.train_step()
    yield at_most("random draws that were not taken back", float(not _same_draws(trainer, planned)), 0.0)
    moved, apart = (_distance(planned, other) for other in (_positions(before), _positions(trainer.state())))
    yield at_most("positions off a run on that tier", apart / moved, MOVED_LIMIT, unit="of what they moved")


def _room(trainer: Trainer) -> float:
    """Return a memory limit in bytes too small for the next step; takes steps first, so that lasting tensors exist."""
    trainer.train_step()
    if trainer.device.type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats(trainer.device)
    trainer.train_step()
    held, peak = torch.cuda.memory_allocated(trainer.device), torch.cuda.max_memory_allocated(trainer.device)
    return held + SHARE_LEFT * (peak - held)


def _same_draws(left: Trainer, right: Trainer) -> bool:
    pairs = ((left.host_generator, right.host_generator), (left.device_generator, right.device_generator))
    return all(torch.equal(ours.get_state(), theirs.get_state()) for ours, theirs in pairs)


def _positions(state: dict[str, Any]) -> Tensor:  # [N, 3]
    return state["gaussians"]["means"]


def _distance(trainer: Trainer, positions: Tensor) -> float:  # [N, 3]
    return float((_positions(trainer.state()) - positions).double().norm())

"""Operators of torch in a step, by part: what a card would launch, counted on the CPU.

    python benchmarks/operators.py [--preset toybox] [--steps 4]

Views are counted apart, because they launch nothing. The last line is one JSON object.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from torch.utils._python_dispatch import TorchDispatchMode

import sdi_gs
from sdi_gs.training.trainer import Trainer

VIEWS = frozenset(
    "view reshape _unsafe_view expand slice select t transpose permute unsqueeze squeeze detach alias split unbind "
    "as_strided _reshape_alias split_with_sizes chunk unfold diagonal narrow".split()
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    preset: str = "toybox"
    prompt: str = "a blue robot"
    representation: str | None = None
    steps: int = 4
    """Steps that are counted, after one that is not."""


class Counting(TorchDispatchMode):
    """Counts every operator under the innermost part that is open."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, bool]] = Counter()
        self.open = ["the rest"]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[self.open[-1], func.overloadpacket.__name__ in VIEWS] += 1
        return func(*args, **(kwargs or {}))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is called within under a name."""
        self.open.append(name)
        try:
            yield
        finally:
            self.open.pop()

    def wrap(self, owner: Any, method: str, name: str) -> None:
        """Count the calls of a method under a name."""
        inner = getattr(owner, method)

        def counted(*args: Any, **named: Any) -> Any:
            with self.part(name):
                return inner(*args, **named)

        setattr(owner, method, counted)


def main(settings: Settings) -> None:
    """Count and print."""
    values = {} if settings.representation is None else {"representation": settings.representation}
    config = sdi_gs.preset(settings.preset, values, prompt=settings.prompt)
    trainer, counting = Trainer(config, sdi_gs.load_prior(config)), Counting()
    trainer.train_step()
    for owner, method, name in (
        (trainer.scene, "render", "render"),
        (trainer.prior, "encode_images", "encoder"),
        (trainer.prior, "decode_latents", "decoder"),
        (trainer.prior, "predict_noise", "predictor"),
        (trainer.scene, "backward", "backward"),
        (trainer.scene, "update", "optimisers"),
    ):
        if hasattr(owner, method):
            counting.wrap(owner, method, name)
    with counting:
        reports = [trainer.train_step() for _ in range(settings.steps)]
    parts = sorted({part for part, _ in counting.counts})
    rows = [
        {
            "part": part,
            "launches": counting.counts[part, False] / settings.steps,
            "views": counting.counts[part, True] / settings.steps,
        }
        for part in parts
    ]
    for row in sorted(rows, key=lambda row: -row["launches"]):
        print(f"{row['part']:>12}: {row['launches']:8.1f} launches, {row['views']:8.1f} views a step")
    total = sum(row["launches"] for row in rows)
    calls = sum(report.predictor_calls for report in reports)
    summary = {"benchmark": "operators", "preset": settings.preset, "torch": torch.__version__, "calls": calls}
    print(json.dumps(summary | {"launches_a_step": total, "rows": rows}))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))

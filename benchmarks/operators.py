"""Operators of torch in a step, by part: what a card would launch, counted on the CPU.

    python benchmarks/operators.py [--preset toybox] [--steps 4]
    python benchmarks/operators.py --preset sd21-base --tier 24   # Stable Diffusion's, on tensors without data

Views are counted apart, because they launch nothing. With ``--tier`` the U-Net's launches are those that CUDA graphs
take over, at the run's mean number of calls. The last line is one JSON object.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import tools_on_path  # noqa: F401
import torch
import tyro
from memory_counting.counting import count_step, published_prior
from memory_counting.prediction import card_precision, mean_calls
from torch.utils._python_dispatch import TorchDispatchMode

import sdi_gs
from sdi_gs.settings.run import RunConfig
from sdi_gs.settings.tiers import TierName, tier_named, under_tier
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
    tier: TierName | None = None
    """Memory tier of a card for which a late step of Stable Diffusion 2.1 base is counted."""


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


def on_card(config: RunConfig, tier: TierName) -> dict[str, Any]:
    """Print and return the launches of a late step by part, those of the U-Net inside CUDA graphs."""
    config = replace(config, compute=under_tier(config.compute, tier_named(tier).compute))
    count = count_step(config, published_prior("sd21-base", image_size=512, dtype=card_precision("auto")))
    launches = Counter(str(operation.part) for operation in count.operations)
    launches["unet"] = round(launches["unet"] / count.predictor_calls * mean_calls(config))
    for part, number in launches.most_common():
        print(f"{part:>12}: {number:8d} launches a step")
    outside = launches.total() - launches["unet"]
    print(f"outside graphs: {outside} of {launches.total()}, {outside / launches.total():.3f}")
    return {"tier": tier, "launches": dict(launches), "outside_graphs": outside / launches.total()}


def main(settings: Settings) -> None:
    """Count and print."""
    values = {} if settings.representation is None else {"representation": settings.representation}
    config = sdi_gs.preset(settings.preset, values, prompt=settings.prompt)
    if settings.tier is not None:
        found = on_card(config, settings.tier)
        print(json.dumps({"benchmark": "operators", "preset": settings.preset, **found}))
        return
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

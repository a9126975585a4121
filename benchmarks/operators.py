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


GRAPH_LAUNCHES = 5
"""Launches of a call under CUDA graphs: its three inputs copied, the graph, and its result copied."""


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
    """Print and return the launches of a late step by part, at a run's mean number of calls under CUDA graphs."""
    config = replace(config, compute=under_tier(config.compute, tier_named(tier).compute))
    prior, calls = published_prior("sd21-base", image_size=512, dtype=card_precision("auto")), mean_calls(config)
    # A step's launches are linear in its calls: two numbers of them, at the middle of the noise, give the mean's.
    middle = replace(config, guidance=replace(config.guidance, t_min=0.5, t_max=0.5))
    few, many = (count_step(middle, prior, inversion_steps=steps) for steps in (1, 10))
    share = (calls - few.predictor_calls) / (many.predictor_calls - few.predictor_calls)
    seen = [Counter((operation.part, operation.name) for operation in count.operations) for count in (few, many)]
    launches = {key: seen[0][key] + share * (seen[1][key] - seen[0][key]) for key in sorted(seen[0] | seen[1])}
    by_part = {"graphs": GRAPH_LAUNCHES * calls}
    for (part, _), number in launches.items():
        by_part[part] = by_part.get(part, 0.0) + number
    for part, number in sorted(by_part.items(), key=lambda item: -item[1]):
        names = sorted(((count, name) for (owner, name), count in launches.items() if owner == part), reverse=True)
        most = ", ".join(f"{name or 'triton'} {count:.0f}" for count, name in names[:8])
        print(f"{part:>10}: {number:6.0f} launches a step: {most}")
    total = sum(by_part.values())
    outside = total - by_part["unet"]
    print(f"outside graphs: {outside:.0f} of {total:.0f}, {outside / total:.3f}; {calls:.2f} calls a step")
    found = {part: round(number, 1) for part, number in by_part.items()}
    return {"tier": tier, "calls": calls, "launches": found, "outside_graphs": outside / total}


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

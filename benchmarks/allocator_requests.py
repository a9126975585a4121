"""Record the requests to torch's allocator in a training step on a card, and replay them with the allocator's model.

    python benchmarks/allocator_requests.py --tiers 40 12 --save requests.json.gz     # on a CUDA card; a minute

Steps are those of ``steps_on_card.py``, the second ones after a run's start. ``memory_counting.allocator`` replays the
recorded requests and should reserve as much as torch did; then it replays the counted step, which shows what counting
misses. Blocks that are freed before the next event are temporary memory of kernels, mostly workspaces of convolutions.
The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
from pathlib import Path
from typing import Any

import tools_on_path  # noqa: F401
import torch
from memory_cases import usual
from memory_counting.allocator import reserved_bytes
from memory_counting.counting import count_step, published_prior
from memory_counting.meter import Allocation
from steps_on_card import Bench

from sdi_gs.settings.tiers import TIERS, Tier, tier_named

DEVICE = torch.device("cuda")
LONGEST = 2_000_000
"""Number of recorded events."""


def recorded(bench: Bench, tier: Tier, size: int) -> tuple[list[Allocation], dict[str, int]]:
    """Return the requests of a step, starting with those open before it, and torch's own figures."""
    config = usual(compute=tier.compute)
    trainer = bench.trainer(config, size)
    trainer.step = config.steps // 2
    trainer.train_step()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    open_before: Any = torch.cuda.memory._snapshot()
    torch.cuda.memory._record_memory_history(enabled="all", context=None, max_entries=LONGEST)
    trainer.train_step()
    torch.cuda.synchronize()
    after: Any = torch.cuda.memory._snapshot()
    torch.cuda.memory._record_memory_history(enabled=None)
    figures = {
        "tensor_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
    }
    [events] = after["device_traces"]
    return [*_open_blocks(open_before["segments"]), *_requests(events)], figures


def _open_blocks(segments: list[dict[str, Any]]) -> list[Allocation]:
    blocks = [block for segment in segments for block in segment["blocks"]]
    return [Allocation(block["address"], block["size"]) for block in blocks if block["state"] == "active_allocated"]


def _requests(events: list[dict[str, Any]]) -> list[Allocation]:
    """Return requests in order; a block is named by its address, which is reused once it is free."""
    sizes = {"alloc": "size", "free_completed": None}
    return [
        Allocation(event["addr"], event["size"] if sizes[event["action"]] else 0)
        for event in events
        if event["action"] in sizes
    ]


def borrowed(requests: list[Allocation]) -> list[int]:
    """Return the sizes of blocks that were freed before the next event, largest first."""
    pairs = zip(requests, requests[1:], strict=False)
    return sorted((ours.size for ours, then in pairs if ours.size and then == Allocation(ours.block, 0)), reverse=True)


def summary(requests: list[Allocation]) -> dict[str, Any]:
    """Replay a sequence of requests with the model and return its figures."""
    sizes = borrowed(requests)
    live, most, held = 0, 0, dict[int, int]()
    for request in requests:
        live += request.size - held.pop(request.block, 0)
        if request.size:
            held[request.block] = request.size
        most = max(most, live)
    return {
        "requests": len(requests),
        "tensor_bytes": most,
        "reserved_by_the_model": reserved_bytes(requests),
        "borrowed": {"blocks": len(sizes), "largest": sizes[:12]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiers", nargs="*", choices=[tier.name for tier in TIERS], default=["40", "12"])
    parser.add_argument("--size", type=int, default=512, help="side of the pictures in pixels")
    parser.add_argument("--save", type=Path, help="file for every request, gzipped JSON")
    arguments = parser.parse_args()
    bench = Bench(DEVICE, miniature=False)
    counted_prior = published_prior("sd21-base", image_size=arguments.size, dtype=torch.float16)
    told: dict[str, Any] = {}
    kept: dict[str, list[list[int]]] = {}
    for tier in map(tier_named, arguments.tiers):
        requests, figures = recorded(bench, tier, arguments.size)
        count = count_step(usual(compute=tier.compute), counted_prior)
        told[tier.name] = {
            "measured": figures,
            "recorded": summary(requests),
            "counted": {"tensor_bytes": count.peak_bytes, "reserved_by_the_model": count.reserved},
        }
        kept[tier.name] = [[request.block, request.size] for request in requests]
        print(tier.name, json.dumps(told[tier.name]), flush=True)
    if arguments.save is not None:
        with gzip.open(arguments.save, "wt", encoding="utf-8") as file:
            json.dump(kept, file)
    print(json.dumps(told))


if __name__ == "__main__":
    main()

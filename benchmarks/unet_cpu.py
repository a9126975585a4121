"""The toybox prior's U-Net on a CPU: ways to compute a call, over torch in float32.

    python benchmarks/unet_cpu.py [--rows 8] [--repeats 15] [--threads 1]

All ways take turns within one process; times are those of the process, ratios are of medians, errors are the largest
difference from torch's float32 over its largest value. What a way takes once, before its first result, stands beside
it: a run of few calls is not worth it. The last line is one JSON object.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import tyro
from torch import Tensor

import sdi_gs
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.openvino_unet import OpenVinoUnet

BAR = 1.7
EXACT = 1e-5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options."""

    rows: int = 8
    """Rows of a call: views times branches."""
    repeats: int = 15
    """Turns of each way."""
    threads: int = 1


def ways(unet: Any) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Return the ways by name; each returns the prediction in float32."""

    def by_torch(network: Any, dtype: torch.dtype, layout: torch.memory_format) -> Callable[..., Tensor]:
        return lambda latents, timesteps, embeddings: network(
            latents.to(dtype).contiguous(memory_format=layout), timesteps, encoder_hidden_states=embeddings.to(dtype)
        ).sample.float()

    plain, last = torch.contiguous_format, torch.channels_last
    found = {
        "torch float32": by_torch(unet, torch.float32, plain),
        "torch float32, channels last": by_torch(copy.deepcopy(unet).to(memory_format=last), torch.float32, last),
        "torch bfloat16, channels last": by_torch(
            copy.deepcopy(unet).to(torch.bfloat16, memory_format=last), torch.bfloat16, last
        ),
    }
    if importlib.util.find_spec("openvino") is not None:
        by_openvino = OpenVinoUnet(unet)
        found["openvino float32"] = lambda *inputs: by_openvino(*inputs).sample
    return found


@torch.no_grad()
def main(settings: Settings) -> None:
    """Time all ways and print."""
    torch.set_num_threads(settings.threads)
    prior = sdi_gs.load_prior(sdi_gs.preset("toybox", prompt="a blue robot"))
    assert isinstance(prior, LatentDiffusionPrior)
    size, generator = prior.unet.config.sample_size, torch.Generator().manual_seed(0)
    embeddings = prior.embed_prompts(["a blue robot, front view, white background"]).expand(settings.rows, -1, -1)
    latents = torch.randn(settings.rows, prior.unet.config.in_channels, size, size, generator=generator)
    inputs = (latents, torch.full((settings.rows,), 500), embeddings.contiguous())
    named, times, errors, first = ways(prior.unet), {}, {}, {}
    reference = named["torch float32"](*inputs)
    for name, way in named.items():
        begin = time.process_time()
        found = way(*inputs)
        first[name], times[name] = time.process_time() - begin, []
        errors[name] = ((found - reference).abs().max() / reference.abs().max()).item()
    for _ in range(settings.repeats):
        for name, way in named.items():
            begin = time.process_time()
            way(*inputs)
            times[name].append(time.process_time() - begin)
    base = statistics.median(times["torch float32"])
    rows = [
        {"way": name, "ms": 1e3 * statistics.median(values), "ratio": base / statistics.median(values)}
        | {"error": errors[name], "first_s": first[name]}
        for name, values in times.items()
    ]
    for row in rows:
        speed = f"{row['ms']:6.1f} ms, {row['ratio']:.2f}x, error {row['error']:.1e}"
        print(f"{row['way']:>30}: {speed}, first call {row['first_s']:.1f} s")
    best = max((row for row in rows if row["error"] < EXACT), key=lambda row: row["ratio"])
    summary = {"benchmark": "unet_cpu", "torch": torch.__version__, "threads": settings.threads, "rows": settings.rows}
    print(json.dumps(summary | {"best": best["way"], "ratio": best["ratio"], "bar": BAR, "ways": rows}))


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))

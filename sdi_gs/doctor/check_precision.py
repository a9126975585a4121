"""Check "precision": the target of Stable Diffusion 2.1's SDI step in half precision, compared with float32.

Letters: C latent channels, h w latent pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sdi_gs.doctor.check_setup import CheckSetup, full_float32
from sdi_gs.doctor.distilled import PROMPT, cosine, distill_without_chance, robot_views
from sdi_gs.doctor.rows import Row, at_least, shown
from sdi_gs.doctor.sd21_models import load_sd21, weights_at_hand
from sdi_gs.guidance.prompts import Conditions
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior

COSINE_LIMIT = 0.999
"""Smallest cosine. Narrow random networks in bfloat16 have no limit: guidance at 7.5 multiplies rounding errors,
and few channels average little of them out (measured: 0.9987, and 0.99997 in float16)."""
TIMESTEP = 500
"""Half of the diffusion's length; the inversion up to it takes half of the grid's predictor calls."""
_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

Load = Callable[..., LatentDiffusionPrior]


def check_precision(setup: CheckSetup, *, load: Load = load_sd21) -> Iterator[Row]:
    """Yield three rows per type; ``load`` replaces ``load_sd21``."""
    weights = weights_at_hand(miniature=setup.size.miniature)

    def target_in(dtype: torch.dtype) -> Tensor:
        # One model at a time: in float32 it takes half of a small card.
        prior = load(weights, device=setup.device, dtype=dtype)
        return _target(setup, prior, random=weights.folder is None)

    with full_float32():
        exact = target_in(torch.float32)
        for name, dtype in _TYPES.items():
            target = target_in(dtype)
            yield at_least(f"{name}: finite share of the target", float(target.isfinite().double().mean()), 1.0)
            what, alike = f"{name}: cosine of the target", cosine(target, exact)
            if weights.miniature and dtype == torch.bfloat16:
                yield shown(what, alike, unit="", note=weights.words)
            else:
                yield at_least(what, alike, COSINE_LIMIT, note=weights.words)
            error = float((target - exact).norm() / exact.norm())
            yield shown(f"{name}: error of the target", error, unit="relative L2")


def _target(setup: CheckSetup, prior: LatentDiffusionPrior, *, random: bool) -> Tensor:  # [1, C, h, w]
    """Return the target of a step on one view of toybox's robot, on the CPU in float32."""
    embeddings = prior.embed_prompts([f"{PROMPT}, front view, white background", ""])
    conditions = Conditions(prompt_embeddings=embeddings[:1], negative_embeddings=embeddings[1:])
    latents = _drawn(prior, setup.device) if random else _seen(prior, setup.device)
    # Move both off the card: one that barely holds the float32 model needs the memory.
    prior.text_encoder.to("cpu")
    prior.vae.to("cpu")
    made = distill_without_chance(setup.stable_diffusion.guidance, prior, latents, conditions, timestep=TIMESTEP)
    return made.target.float().cpu()


@torch.no_grad()
def _seen(prior: LatentDiffusionPrior, device: torch.device) -> Tensor:  # [1, C, h, w]
    """Encode a picture of the prompt."""
    _, pictures = robot_views(1, min(prior.image_size, 256))
    return prior.encode_images(pictures.to(device), torch.Generator(device).manual_seed(0))


def _drawn(prior: LatentDiffusionPrior, device: torch.device) -> Tensor:  # [1, C, h, w]
    """Draw latents of unit variance; those of a random encoder would be nearly constant."""
    unet = prior.unet.config
    shape = (1, unet.in_channels, unet.sample_size, unet.sample_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)

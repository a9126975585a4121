"""A folder's networks without weights: made from their configs, held against the weights' names and shapes, tried.

On torch's meta device a call computes shapes alone. Whatever a config makes impossible shows here, before any weight
is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sdi_gs.cameras import orbit_cameras
from sdi_gs.errors import UserError
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.layout import ALTERNATIVES, in_one_line
from sdi_gs.priors.model_folder import ModelFolder, damaged
from sdi_gs.priors.parts import Parts
from sdi_gs.priors.quiet import without_messages
from sdi_gs.settings.shown import shown

_OLD_NAMES = (
    # transformers 5.6 took a level out of the names.
    (re.compile(r"^text_model\."), ""),
    # diffusers' earlier names of the VAE's attention.
    (re.compile(r"\.(query|key|value)\.(weight|bias)$"), lambda found: f".to_{found[1][0]}.{found[2]}"),
    (re.compile(r"\.proj_attn\.(weight|bias)$"), r".to_out.0.\1"),
)


@contextmanager
def component_errors(component: str, folder: Path) -> Iterator[None]:
    """Name the component that could not be loaded."""
    try:
        yield
    except UserError as error:
        raise UserError(f"the {component} in {folder} cannot be used: {error}") from error
    except Exception as error:  # Broken JSON, truncated weights, wrong shapes: each library has its own types.
        raise UserError(
            f"the {component} in {folder} cannot be loaded ({in_one_line(error)}): download it again, or {ALTERNATIVES}"
        ) from error


def load_tokenizer(folder: Path) -> Any:
    """Return a folder's tokenizer."""
    from transformers import CLIPTokenizer

    with component_errors("tokenizer", folder), without_messages():
        return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)


def empty_parts(model: ModelFolder) -> Parts:
    """Return a folder's networks on the meta device; UserError for configs that none can be made from.

    If the weights are here, they must have the networks' names and shapes. Those for which there is no place are
    named in the notes.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    made: dict[str, Any] = {}
    for component, network in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        with component_errors(component, model.path), torch.device("meta"), without_messages():
            made[component] = network.from_config(dict(model.configs[component]))
    with component_errors("text_encoder", model.path), torch.device("meta"), without_messages():
        made["text_encoder"] = CLIPTextModel(CLIPTextConfig(**model.configs["text_encoder"]))
    notes = [] if model.headers is None else [_left_over(model, name, network) for name, network in made.items()]
    return Parts(
        tokenizer=load_tokenizer(model.path),
        scheduler=model.configs["scheduler"],
        notes=tuple(filter(None, notes)),
        **made,
    )


def _left_over(model: ModelFolder, component: str, network: Any) -> str:
    """Return a warning of weights without a place in a network, or nothing; UserError for missing and other ones."""
    assert model.headers is not None
    shapes = {_name_now(name): shape for file in model.headers[component] for name, shape in file.shapes.items()}
    needed = {_name_now(name): tuple(value.shape) for name, value in network.state_dict().items()}
    gaps = [name for name in needed if name not in shapes]
    if gaps:
        raise UserError(
            f"the {component} in {model.path} lacks {len(gaps)} weights ({gaps[0]}, ...): download it again, or "
            f"{ALTERNATIVES}"
        )
    for name, shape in needed.items():
        if shapes[name] != shape:
            raise damaged(model.path, component, f"{name} is {shapes[name]}, and {shape} by its config")
    others = [name for name in shapes if name not in needed and not name.endswith("position_ids")]
    if not others:
        return ""
    return (
        f"warning: {len(others)} weights of the {component} in {model.path} are not used ({shown(others[0])}, ...): by "
        "its config there is no place for them, so that its images may be wrong"
    )


def _name_now(name: str) -> str:
    for pattern, now in _OLD_NAMES:
        name = pattern.sub(now, name)
    return name


def require_usable(prior: LatentDiffusionPrior, folder: Path) -> None:
    """Raise UserError unless a prompt can be embedded, an image encoded, and noise predicted in its latents.

    ``prior`` is made of networks on the meta device.
    """
    _require_words(prior, folder)
    with component_errors("text_encoder", folder):
        embeddings = prior.embed_prompts(["a blue robot"])
    with component_errors("vae", folder):
        size = prior.image_size
        latents = prior.encode_images(torch.empty(1, size, size, 3, device="meta"), torch.Generator())
        expected = (1, prior.vae.config.latent_channels, prior.unet.config.sample_size, prior.unet.config.sample_size)
        if tuple(latents.shape) != expected:
            raise UserError(f"its latents are {tuple(latents.shape)}, and the unet's are {expected}")
    with component_errors("unet", folder):
        views = prior.views_per_group
        turns = torch.arange(float(views)) * 360.0 / views
        cameras = orbit_cameras(turns, 0 * turns, 0 * turns + 3.0, 0 * turns + 40.0, width=size, height=size)
        latents, embeddings = latents.expand(views, -1, -1, -1), embeddings.expand(views, -1, -1)
        noise = prior.predict_noise(latents, prior.schedule.num_timesteps // 2, embeddings, cameras)
        if noise.shape != latents.shape:
            raise UserError(f"its predictions are {tuple(noise.shape)}, and its latents {tuple(latents.shape)}")


def _require_words(prior: LatentDiffusionPrior, folder: Path) -> None:
    """Raise UserError unless the text encoder knows every token, and reads at least one between its own two."""
    vocabulary: Mapping[str, int] = prior.tokenizer.get_vocab()
    tokens, known = (
        max(len(prior.tokenizer), 1 + max(vocabulary.values(), default=0)),
        prior.text_encoder.config.vocab_size,
    )
    if tokens > known:
        raise UserError(
            f"the tokenizer in {folder} has {tokens} tokens and its text_encoder knows {known}: take both from one "
            f"model, or {ALTERNATIVES}"
        )
    length = prior.tokenizer.model_max_length
    if isinstance(length, bool) or not isinstance(length, int | float) or not length >= 3:
        raise damaged(folder, "tokenizer", f"model_max_length is {shown(length)}: it must be at least 3")

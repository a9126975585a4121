"""Recognise a model by the names in its configs: what is supported, what is refused, what is warned of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError

SUPPORTED = "text-to-image models of Stable Diffusion 1.x and 2.x in their layout are supported"

PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionPipelineSafe",
    "StableDiffusionImg2ImgPipeline",
    "LatentConsistencyModelPipeline",
)
"""Pipelines in ``model_index.json`` whose networks are those of a text-to-image Stable Diffusion 1.x or 2.x."""

_COMPONENT_CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}
_FOREIGN_FOLDERS = ("transformer", "text_encoder_2", "text_encoder_3", "prior", "controlnet")
_DISTILLED_NAME = re.compile(
    r"(?<![a-z])(turbo|lcm|tcd|pcm|lightning|hyper[-_ ]?sd|flash[-_ ]?sd|dmd2?|schnell|distill\w*)(?![a-z])",
    re.IGNORECASE,
)
_FEW_STEPS = re.compile(r"(?<![a-z\d])(?:1|2|4|6|8|12|16)[-_ ]?steps?(?![a-z])", re.IGNORECASE)
_STEMS_WITHOUT_A_NAME = ("pytorch_lora_weights", "adapter_model")
_OWN_NAMES = ("modelspec.title", "ss_output_name")
_DISTILLED_SCHEDULERS = ("LCMScheduler", "TCDScheduler")


def views_of(unet: Mapping[str, Any]) -> int:
    """Return how many views a U-Net of that config denoises together: four if it takes 4 x 4 cameras, as MVDream's."""
    takes_cameras = unet.get("class_embed_type") == "projection"
    return 4 if takes_cameras and unet.get("projection_class_embeddings_input_dim") == 16 else 1


def read_json(file: Path) -> dict[str, Any]:
    """Return a config's content; ValueError if it is not a JSON object."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{file.name} is nested without end") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is not a JSON object")
    return content


def refuse_other_pipeline(index: Mapping[str, Any], where: str) -> None:
    """Raise UserError if a ``model_index.json`` is that of another kind of model."""
    name = index.get("_class_name")
    if isinstance(name, str) and name not in PIPELINES:
        raise UserError(f"{where} is a {name}, which cannot be used: {SUPPORTED}")


def refuse_other_kind(folder: Path) -> None:
    """Raise UserError, with the class's own name, for a folder of another kind of model; silent on broken files."""
    index = folder / "model_index.json"
    if index.is_file():
        refuse_other_pipeline(read_if_sound(index), str(folder))
    files = sorted(file.name for file in folder.glob("*.safetensors"))
    if files and not any((folder / name).is_dir() for name in (*_COMPONENT_CLASSES, *_FOREIGN_FOLDERS)):
        raise UserError(f"{folder} has no unet/ but single files: give the path of one, such as {folder / files[0]}")
    for name in _FOREIGN_FOLDERS:
        if (folder / name).is_dir():
            config = read_if_sound(folder / name / "config.json")
            named = config.get("_class_name") or next(iter(config.get("architectures", [])), "no part of the layout")
            raise UserError(f"{folder} has a {name} ({named}), which cannot be used: {SUPPORTED}")
    for component, expected in _COMPONENT_CLASSES.items():
        named = read_if_sound(folder / component / "config.json").get("_class_name", expected)
        if named != expected:
            raise UserError(f"the {component} in {folder} is {named}, where {expected} is needed: {SUPPORTED}")


def signs_of_distillation(name: str, scheduler: Mapping[str, Any], unet: Mapping[str, Any]) -> str | None:
    """Return what shows that a model was distilled to few steps or to no guidance, or None."""
    found = _DISTILLED_NAME.search(name)
    if found is not None:
        return f'"{found[0]}" in its name'
    if unet.get("time_cond_proj_dim") is not None:
        return "time_cond_proj_dim in its unet"
    scheduler_class = scheduler.get("_class_name")
    if scheduler_class in _DISTILLED_SCHEDULERS:
        return f"its {scheduler_class}"
    if scheduler_class == "EulerDiscreteScheduler" and scheduler.get("timestep_spacing") == "trailing":
        return "trailing timesteps of an EulerDiscreteScheduler, as in SD-Turbo"
    return None


def sign_of_few_steps(file: Path, metadata: Mapping[str, str]) -> str | None:
    """Return what shows that a LoRA was made to sample in few steps, or None: its name, or one in its metadata."""
    names = {"name": file.stem}
    if file.stem in _STEMS_WITHOUT_A_NAME:
        # The folder is named after the repository, in the hub's cache that of all its revisions.
        folder = file.absolute().parent
        names["folder"] = (folder.parents[1] if folder.parent.name == "snapshots" else folder).name
    names |= {key: metadata[key] for key in _OWN_NAMES if key in metadata}
    for where, text in names.items():
        found = _DISTILLED_NAME.search(text) or _FEW_STEPS.search(text)
        if found is not None:
            return f'"{found[0]}" in its {where}'
    return None


def few_steps_note(file: Path, sign: str) -> str:
    """Return the warning of such a LoRA in one line."""
    return (
        f"warning: {file.name} looks like a LoRA for sampling in few steps ({sign}): with it the model answers wrongly "
        "at a guidance scale of 7.5 and at most timesteps; leave it out"
    )


def distillation_note(sign: str) -> str:
    """Return the warning of a distilled model in one line."""
    return (
        f"warning: this looks like a distilled model ({sign}): it answers wrongly at a guidance scale of 7.5 and at "
        "most timesteps; use the model that it was made from"
    )


def read_if_sound(file: Path) -> dict[str, Any]:
    """Return a config's content; nothing for a broken one."""
    # Loading names broken files; here they only do not speak for another kind.
    try:
        return read_json(file)
    except (OSError, ValueError):
        return {}

"""Well-formed folders with wrong contents: listed, checked and loaded by the same rules, refused in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.priors.catalog import load_prior
from sdi_gs.priors.check import PriorReport, check_prior
from sdi_gs.priors.listing import prior_status
from sdi_gs.settings.run import RunConfig

Build = Callable[[Path], Any]
UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
BIAS = "mid_block.resnets.1.conv2.bias"


def edited(file: str, **changes: Any) -> Build:
    """Set keys of a config; None takes one out."""

    def build(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) | changes
        (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return build


def tensor(file: str, name: str, change: Callable[[Tensor], Tensor] | None) -> Build:
    """Change a weight; None takes it out."""

    def build(folder: Path) -> None:
        tensors = load_file(folder / file)
        value = tensors.pop(name)
        save_file(tensors | ({} if change is None else {name: change(value)}), folder / file)

    return build


def cut(file: str) -> Build:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:-100])


SEEN_IN_THE_LIST: dict[str, tuple[Build, str]] = {
    "steps without end": (
        edited("scheduler/scheduler_config.json", num_train_timesteps=10**9),
        "the scheduler in .*num_train_timesteps is 1000000000: it must be a whole number, 2 to 100000",
    ),
    "betas that are none": (
        edited("scheduler/scheduler_config.json", beta_end=float("nan")),
        "the scheduler in .*beta_end is nan: it must be above 0 and below 1",
    ),
    "an offset that is true": (edited("scheduler/scheduler_config.json", steps_offset=True), "steps_offset is True"),
    "layers without end": (
        edited("text_encoder/config.json", num_hidden_layers=2**70),
        "the text_encoder in .*num_hidden_layers is 1180591620717411303424: it must be a whole number, 1 to 256",
    ),
    "levels without end": (edited("unet/config.json", block_out_channels=[32] * 500), "block_out_channels has 500"),
    "a level that is a word": (edited("vae/config.json", block_out_channels=[8, "8"]), "block_out_channels is '8'"),
    "a factor of nothing": (edited("vae/config.json", scaling_factor=0.0), "scaling_factor is 0.0: it must be 1e-06"),
    "a config that is a list": (
        lambda folder: (folder / "unet" / "config.json").write_text("[]"),
        "the unet in .*is not a JSON object",
    ),
    "a config without end": (
        lambda folder: (folder / "vae" / "config.json").write_bytes(b" " * 2**21),
        "the vae in .*has 2097152 bytes, too many for a config",
    ),
    "nesting without end": (
        lambda folder: (folder / "vae" / "config.json").write_bytes(b"[" * 200_000),
        "the vae in .* cannot be loaded",
    ),
    "bytes that are no text": (
        lambda folder: (folder / "vae" / "config.json").write_bytes(b"\xff\xfe\x00"),
        "the vae in .* cannot be loaded",
    ),
    "weights cut short": (cut(UNET), "the unet in .* cannot be loaded: .* bytes where its header announces"),
    "weights of whole numbers": (
        tensor(VAE, "quant_conv.bias", lambda value: value.to(torch.int8)),
        "the vae in .*quant_conv.bias is of type 'I8', not of floating point",
    ),
}
SEEN_WITHOUT_WEIGHTS: dict[str, tuple[Build, str]] = {
    "a number that is a word": (edited("unet/config.json", norm_eps="step"), r"the unet in .* cannot be loaded \("),
    "heads that do not divide": (edited("text_encoder/config.json", num_attention_heads=5), "the text_encoder in"),
    "an activation that is none": (edited("unet/config.json", act_fn="nothing"), "the unet in .* cannot be loaded"),
    "no factor": (edited("vae/config.json", scaling_factor=None, block_out_channels=[8, 8, 16, 32]), "the vae in"),
    "a weight of another shape": (
        tensor(UNET, BIAS, lambda value: value[:-1]),
        r"the unet in .*mid_block.resnets.1.conv2.bias is \(63,\), and \(64,\) by its config",
    ),
    "a weight fewer": (tensor(VAE, "quant_conv.bias", None), r"the vae in .* lacks 1 weights \(quant_conv.bias"),
    "a larger vocabulary": (
        edited("tokenizer/special_tokens_map.json", unk_token="<|unknown|>"),
        "the tokenizer in .* tokens and its text_encoder knows .*: take both from one model",
    ),
    "prompts of no words": (
        edited("tokenizer/tokenizer_config.json", model_max_length=2),
        "model_max_length is 2: it must be at least 3",
    ),
    "noise that grows": (
        edited("scheduler/scheduler_config.json", trained_betas=[0.1, -0.5, 0.1]),
        "its noise levels do not fall from 1 to 0",
    ),
}


def line_of(attempt: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", [*SEEN_IN_THE_LIST, *SEEN_WITHOUT_WEIGHTS])
def test_list_check_and_run_refuse_a_folder_for_the_same_reason(model_copy: Callable[..., Path], kind: str) -> None:
    build, line = (SEEN_IN_THE_LIST | SEEN_WITHOUT_WEIGHTS)[kind]
    folder = model_copy()
    build(folder)
    attempts: list[Callable[[], object]] = [
        lambda: load_prior(RunConfig(prior=str(folder)), device="cpu"),
        lambda: check_prior(str(folder)),
    ]
    if kind in SEEN_IN_THE_LIST:
        attempts.append(lambda: prior_status(str(folder)))
    [said] = {line_of(attempt) for attempt in attempts}
    assert re.search(line, said), said


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("file", "name"), [(UNET, BIAS), (VAE, "quant_conv.bias"), (TEXT, "final_layer_norm.bias")])
def test_weights_that_are_not_finite_are_named_before_a_step(
    model_copy: Callable[..., Path], file: str, name: str, value: float
) -> None:
    folder = model_copy()
    known = load_file(folder / file)
    name = name if name in known else f"text_model.{name}"
    tensor(file, name, lambda weight: torch.full_like(weight, value))(folder)
    said = line_of(lambda: load_prior(RunConfig(prior=str(folder)), device="cpu"))
    assert f"the weights {name} are not finite as float32" in said


def test_weights_without_a_place_are_reported_and_nothing_of_a_library(
    model_copy: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = model_copy()
    tensors = load_file(folder / VAE)
    save_file(tensors | {"\x1b[31m.weight": torch.ones(2)}, folder / VAE)
    prior: Any = load_prior(RunConfig(prior=str(folder)), device="cpu")
    report = check_prior(str(folder))
    assert isinstance(report, PriorReport)
    for notes in (prior.notes, report.notes):
        [note] = notes
        assert note.startswith("warning: 1 weights of the vae in") and r"'\x1b[31m.weight'" in note
    # A library would print the name as it is.
    assert capfd.readouterr().err == ""


def test_a_folder_that_is_neither_is_no_model(tmp_path: Path) -> None:
    for attempt in (check_prior, prior_status):
        assert "neither a folder nor a file" in line_of(lambda attempt=attempt: attempt("/dev/null"))

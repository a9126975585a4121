"""LoRA files: exactly W + s B A in every layout, the original bits after removal, one line for what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from original_layout import save_tensors, unet_name
from torch import Tensor

from sdi_gs.doctor.miniature import NARROW, SMALLEST, miniature_networks
from sdi_gs.errors import UserError
from sdi_gs.priors import low_rank
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.low_rank import Merged, merge_loras
from sdi_gs.priors.low_rank_names import LayerNames
from sdi_gs.priors.parts import AddOns, Parts

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0"
CONV = "mid_block.resnets.0.conv1"
TEXT = "encoder.layers.0.self_attn.q_proj"


def load(folder: Path, **add_ons: Any) -> Any:
    return load_latent_diffusion(folder, add_ons=AddOns(**add_ons), device="cpu", dtype=torch.float32)


def weight_of(network: Any, layer: str) -> Tensor:
    known = dict(network.named_modules())
    return known[layer if layer in known else f"text_model.{layer}"].weight


def dyadic(*shape: int, seed: int) -> Tensor:
    """Multiples of 1/8 below 1: products of a few of them are exact in float32."""
    return torch.randint(-7, 8, shape, generator=torch.Generator().manual_seed(seed)).float() / 8.0


class Change:
    """Factors of rank 2 for a layer, and what they add to its weights."""

    def __init__(self, network: Any, layer: str, seed: int) -> None:
        out, *inner = weight_of(network, layer).shape
        self.down, self.up = dyadic(2, *inner, seed=seed), dyadic(out, 2, *(1 for _ in inner[1:]), seed=seed + 1)
        flat = self.up.flatten(1) @ self.down.flatten(1)
        self.added = flat.reshape(out, *inner)


def kohya(network: str, layer: str, change: Change, alpha: float) -> dict[str, Tensor]:
    name = f"lora_{'unet' if network == 'unet' else 'te_text_model'}_{layer.replace('.', '_')}"
    factors = {f"{name}.lora_down.weight": change.down, f"{name}.lora_up.weight": change.up}
    return factors | {f"{name}.alpha": torch.tensor(alpha)}


def peft(network: str, layer: str, change: Change, alpha: float) -> dict[str, Tensor]:
    name = f"{network}.{'' if network == 'unet' else 'text_model.'}{layer}"
    return {
        f"{name}.lora_A.weight": change.down,
        f"{name}.lora_B.weight": change.up,
        f"{name}.alpha": torch.tensor(alpha),
    }


def diffusers(network: str, layer: str, change: Change, alpha: float) -> dict[str, Tensor]:
    part = "lora" if network == "unet" else "lora_linear_layer"
    name = f"{network}.{'' if network == 'unet' else 'text_model.'}{layer}"
    factors = {f"{name}.{part}.down.weight": change.down, f"{name}.{part}.up.weight": change.up}
    return factors | {f"{name}.alpha": torch.tensor(alpha)}


def extracted(network: str, layer: str, change: Change, alpha: float) -> dict[str, Tensor]:
    """kohya's layout with a single file's names of blocks, where those have attention."""
    original = unet_name(f"{layer}.weight", layers=1).removesuffix(".weight") if "attentions" in layer else layer
    return kohya(network, original, change, alpha)


@pytest.mark.parametrize("layout", [kohya, peft, diffusers, extracted])
def test_the_weights_become_exactly_w_plus_s_b_a(
    pristine_models: dict[str, Path], tmp_path: Path, layout: Callable[..., dict[str, Tensor]]
) -> None:
    plain = load(pristine_models["epsilon"])
    rows = [("unet", ATTENTION), ("unet", OUT), ("unet", CONV), ("text_encoder", TEXT)]
    changes = {row: Change(getattr(plain, row[0]), row[1], seed=10 * i) for i, row in enumerate(rows)}
    tensors: dict[str, Tensor] = {}
    for (network, layer), change in changes.items():
        tensors |= layout(network, layer, change, 1.0)
    file = save_tensors(tensors, tmp_path / "style.safetensors")
    prior = load(pristine_models["epsilon"], loras=((file, 0.5),))
    for (network, layer), change in changes.items():
        before, after = weight_of(getattr(plain, network), layer), weight_of(getattr(prior, network), layer)
        # alpha 1 over rank 2, times the weight of one half.
        assert torch.equal(after, before + 0.25 * change.added), layer
    for network in ("unet", "text_encoder"):
        before, after = getattr(plain, network).state_dict(), getattr(prior, network).state_dict()
        assert before.keys() == after.keys()
        others = [name for name in before if not torch.equal(before[name], after[name])]
        assert len(others) == sum(row[0] == network for row in rows)
    assert not any(parameter.requires_grad for parameter in prior.unet.parameters())


@pytest.mark.parametrize("layers", [1, 2])
def test_every_layer_of_attention_is_found_by_its_name_in_a_single_file(layers: int) -> None:
    """diffusers' own converter decides which layer is which: each weight is a number that it passes on."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    networks = miniature_networks(replace(NARROW if layers == 2 else SMALLEST, unet_layers=layers), device="meta")
    names = list(networks.unet.state_dict())
    original = {f"model.diffusion_model.{unet_name(name, layers)}": torch.tensor(i) for i, name in enumerate(names)}
    converted = convert_ldm_unet_checkpoint(dict(original), config=dict(networks.unet.config))
    by_number = {int(value): name for name, value in converted.items()}
    known = LayerNames(low_rank._layers_of(networks.unet), [])
    checked = 0
    for name, value in original.items():
        layer = by_number[int(value)].removesuffix(".weight")
        if ".attentions." not in layer or "norm" in layer or layer.endswith(".bias"):
            continue
        stem = name.removeprefix("model.diffusion_model.").removesuffix(".weight").replace(".", "_")
        found = known.read(f"lora_unet_{stem}.lora_down.weight")
        assert found is not None and (found.network, found.layer) == ("unet", layer)
        checked += 1
    assert checked > 20


def parts_of(prior: Any) -> Parts:
    return Parts(
        tokenizer=prior.tokenizer, text_encoder=prior.text_encoder, unet=prior.unet, vae=prior.vae, scheduler={}
    )


def test_removing_loras_puts_the_original_bits_back(pristine_models: dict[str, Path], tmp_path: Path) -> None:
    prior = load(pristine_models["epsilon"])
    networks = {"unet": prior.unet, "text_encoder": prior.text_encoder}
    before = {name: {key: v.clone() for key, v in one.state_dict().items()} for name, one in networks.items()}
    files = []
    for seed in (0, 1):
        tensors = {}
        for network, layer in (("unet", ATTENTION), ("unet", CONV), ("text_encoder", TEXT)):
            change = Change(networks[network], layer, seed)
            change.down = torch.randn(change.down.shape, generator=torch.Generator().manual_seed(seed))
            tensors |= kohya(network, layer, change, 1.0)
        files.append((save_tensors(tensors, tmp_path / f"{seed}.safetensors"), 0.7))
    undo = Merged()
    merge_loras(parts_of(prior), files, undo=undo)
    for name, one in networks.items():
        assert any(not torch.equal(before[name][key], value) for key, value in one.state_dict().items()), name
    undo.remove()
    for name, one in networks.items():
        after = one.state_dict()
        assert before[name].keys() == after.keys()
        assert all(torch.equal(value, after[key]) for key, value in before[name].items())


def test_the_scale_is_read_where_each_layout_states_it(pristine_models: dict[str, Path], tmp_path: Path) -> None:
    plain = load(pristine_models["epsilon"])
    change = Change(plain.unet, ATTENTION, 0)
    factors = {f"unet.{ATTENTION}.lora_A.weight": change.down, f"unet.{ATTENTION}.lora_B.weight": change.up}
    stated = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 1, "unet.r": 2})}
    bare = {f"base_model.model.{name.removeprefix('unet.')}": value for name, value in factors.items()}
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": 2, "alpha_pattern": {}}))
    cases: list[tuple[str, dict[str, Tensor], Mapping[str, str] | None, float]] = [
        ("silent.safetensors", factors, None, 1.0),
        ("metadata.safetensors", factors, stated, 0.5),
        ("adapter_model.safetensors", bare, None, 4.0),
    ]
    for name, tensors, metadata, scale in cases:
        file = save_tensors(tensors, tmp_path / name, metadata)
        after = weight_of(load(pristine_models["epsilon"], loras=((file, 1.0),)).unet, ATTENTION)
        assert torch.equal(after, weight_of(plain.unet, ATTENTION) + scale * change.added), name


def test_processors_of_the_first_diffusers_are_read(pristine_models: dict[str, Path], tmp_path: Path) -> None:
    plain = load(pristine_models["epsilon"])
    change = Change(plain.unet, OUT, 0)
    start = OUT.removesuffix(".to_out.0")
    tensors = {
        f"unet.{start}.processor.to_out_lora.down.weight": change.down,
        f"unet.{start}.processor.to_out_lora.up.weight": change.up,
    }
    file = save_tensors(tensors, tmp_path / "old.safetensors")
    after = weight_of(load(pristine_models["epsilon"], loras=((file, 1.0),)).unet, OUT)
    assert torch.equal(after, weight_of(plain.unet, OUT) + change.added)


def test_a_lora_works_with_every_option_of_computing(pristine_models: dict[str, Path], tmp_path: Path) -> None:
    from sdi_gs.settings.compute import ComputeConfig

    change = Change(load(pristine_models["epsilon"]).unet, ATTENTION, 0)
    file = save_tensors(kohya("unet", ATTENTION, change, 1.0), tmp_path / "style.safetensors")
    prior = load(pristine_models["epsilon"], loras=((file, 1.0),))
    latents, embeddings = torch.ones(1, 4, 8, 8), prior.embed_prompts(["blue"])
    expected = prior.predict_noise(latents, 500, embeddings)
    prior.configure(ComputeConfig(attention="plain", cache_cross_attention=True, channels_last=True))
    torch.testing.assert_close(prior.predict_noise(latents, 500, embeddings), expected, atol=1e-4, rtol=1e-4)


def factors(**other: Tensor) -> dict[str, Tensor]:
    """A change of rank 2 that fits, but for the given factors."""
    whole = {"down": torch.ones(2, 32), "up": torch.ones(32, 2), "alpha": torch.tensor(1.0)} | other
    name = f"lora_unet_{ATTENTION.replace('.', '_')}"
    return {f"{name}.{'alpha' if key == 'alpha' else f'lora_{key}.weight'}": value for key, value in whole.items()}


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({"lora_unet_down_blocks_7_x.lora_down.weight": torch.ones(2, 4)}, "which the model does not have"),
        ({"lora_te2_text_model_x.lora_down.weight": torch.ones(2, 4)}, "a LoRA of Stable Diffusion XL"),
        ({f"unet.{ATTENTION}.lora_A.weight": torch.ones(2, 32)}, "half of the change"),
        (
            {
                f"unet.{ATTENTION}.lora_A.weight": torch.ones(2, 768),
                f"unet.{ATTENTION}.lora_B.weight": torch.ones(9, 2),
            },
            r"has weights of \(32, 32\), the LoRA changes \(9, 768\)",
        ),
        ({f"unet.{ATTENTION}.hada_w1_a": torch.ones(2, 2)}, "is a LoHa, which is not supported"),
        ({"lora_unet_x.lora_down.weight": torch.ones(2), "lora_unet_x.dora_scale": torch.ones(2)}, "is a DoRA"),
        ({"emb_params": torch.ones(2, 16)}, "is no LoRA"),
        (factors(alpha=torch.ones(2)), "is damaged: the alpha of .* is no number"),
        (factors(alpha=torch.zeros(0)), "is damaged: the alpha of .* is no number"),
        (factors(alpha=torch.tensor(1j)), "is damaged: the alpha of .* is no number"),
        (factors(alpha=torch.tensor(float("nan"))), "is damaged: the alpha of .* is nan"),
        (factors(alpha=torch.tensor(1e30)), r"is damaged: the alpha of .* is 1e\+30"),
        (factors(down=torch.ones(0, 32), up=torch.ones(32, 0)), "a factor of .* is no matrix of numbers"),
        (factors(down=torch.ones(32), up=torch.ones(32)), "a factor of .* is no matrix of numbers"),
        (factors(down=torch.tensor(1.0)), "a factor of .* is no matrix of numbers"),
        (factors(down=torch.ones(2, 32, dtype=torch.int64)), "a factor of .* is no matrix of numbers"),
        (factors(up=torch.full((32, 2), float("nan"))), "a factor of .* is not finite"),
        (factors(down=torch.full((2, 32), float("inf")).half()), "a factor of .* is not finite"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    pristine_models: dict[str, Path], tmp_path: Path, tensors: dict[str, Tensor], line: str
) -> None:
    prior = load(pristine_models["epsilon"])
    before = prior.unet.state_dict()[f"{ATTENTION}.weight"].clone()
    change = Change(prior.unet, ATTENTION, 0)
    good = save_tensors(kohya("unet", ATTENTION, change, 1.0), tmp_path / "good.safetensors")
    bad = save_tensors(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match=line) as caught:
        merge_loras(parts_of(prior), [(good, 1.0), (bad, 1.0)])
    assert "\n" not in str(caught.value)
    assert torch.equal(prior.unet.state_dict()[f"{ATTENTION}.weight"], before)


@pytest.mark.parametrize(
    ("name", "metadata", "sign"),
    [
        ("lcm-lora-sdv1-5.safetensors", {}, '"lcm" in its name'),
        ("LCM_LoRA_Weights_SD15.safetensors", {}, '"LCM" in its name'),
        ("Hyper-SD15-8steps-lora.safetensors", {}, '"Hyper-SD" in its name'),
        ("sd15_turbo.safetensors", {}, '"turbo" in its name'),
        ("pcm_sd15_smallcfg_2step.safetensors", {}, '"pcm" in its name'),
        ("fast_4-step.safetensors", {}, '"4-step" in its name'),
        ("TCD-SD15-LoRA/pytorch_lora_weights.safetensors", {}, '"TCD" in its folder'),
        ("models--a--lcm-lora/snapshots/0f3c/pytorch_lora_weights.safetensors", {}, '"lcm" in its folder'),
        ("style.safetensors", {"modelspec.title": "SD Lightning 4 steps"}, '"Lightning" in its modelspec.title'),
        ("style.safetensors", {"ss_output_name": "my_lcm"}, '"lcm" in its ss_output_name'),
        ("style.safetensors", {"modelspec.title": "a style"}, None),
        ("style-step00001200.safetensors", {}, None),
        ("lcm/style_1500steps.safetensors", {}, None),
        ("turbines.safetensors", {"modelspec.description": "also with LCM"}, None),
    ],
)
def test_a_lora_for_few_steps_is_warned_of_in_one_line(
    pristine_models: dict[str, Path], tmp_path: Path, name: str, metadata: dict[str, str], sign: str | None
) -> None:
    factors = {
        f"unet.{ATTENTION}.lora_A.weight": torch.ones(2, 32),
        f"unet.{ATTENTION}.lora_B.weight": torch.ones(32, 2),
    }
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    file = save_tensors(factors, tmp_path / name, {"format": "pt"} | metadata)
    notes = load(pristine_models["epsilon"], loras=((file, 1.0),)).notes
    if sign is None:
        assert notes == ()
        return
    [note] = notes
    assert note.startswith(f"warning: {file.name} looks like a LoRA for sampling in few steps ({sign}): ")
    assert "\n" not in note


def test_a_lora_that_is_not_there_or_a_pickle_is_refused(pristine_models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no LoRA"):
        load(pristine_models["epsilon"], loras=((tmp_path / "no.safetensors", 1.0),))
    (tmp_path / "style.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match="is a pickle"):
        load(pristine_models["epsilon"], loras=((tmp_path / "style.pt", 1.0),))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (b"\xff\xfe{}", "UnicodeDecodeError"),
        (b"[]", "AttributeError"),
        (b"[" * 100_000, "RecursionError"),
        (b'{"lora_alpha": "much"}', "could not convert"),
        (b'{"lora_alpha": NaN}', "the alpha of .* is nan"),
        (b'{"lora_alpha": 1e400}', "the alpha of .* is inf"),
        (b'{"alpha_pattern": {"(": 1}}', "the settings of .* cannot be read"),
        # A search that doubles with each letter of a layer's name.
        (b'{"alpha_pattern": {"(\\\\w+)+$!": 2}}', "is no name of layers"),
        (b'{"alpha_pattern": {"(.*)*x": 2}}', "is no name of layers"),
    ],
)
def test_settings_beside_a_lora_that_cannot_be_read_are_one_line(
    pristine_models: dict[str, Path], tmp_path: Path, settings: bytes, line: str
) -> None:
    prior = load(pristine_models["epsilon"])
    tensors = {name: value for name, value in factors().items() if not name.endswith("alpha")}
    file = save_tensors(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_bytes(settings)
    with pytest.raises(UserError, match=line) as caught:
        merge_loras(parts_of(prior), [(file, 1.0)])
    assert "\n" not in str(caught.value)


def test_a_lora_that_makes_infinite_weights_is_refused_before_a_step(
    pristine_models: dict[str, Path], tmp_path: Path
) -> None:
    file = save_tensors(
        factors(down=torch.full((2, 32), 1e30), up=torch.full((32, 2), 1e30)), tmp_path / "l.safetensors"
    )
    with pytest.raises(UserError, match=r"with its LoRA files the weights .*to_q.weight are not finite as float32"):
        load(pristine_models["epsilon"], loras=((file, 1.0),))

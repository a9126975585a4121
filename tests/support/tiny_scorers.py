"""Tiny random networks in the published layouts of the learned metrics, and independent transcriptions of these.

The transcriptions are written with plain functions after the published code: OpenCLIP's ``CLIP`` (``model.py``,
``transformer.py``), BLIP's ``VisionTransformer`` and ``BertModel`` (``vit.py``, ``med.py``) and ImageReward's head.

Letters: V pictures, L words, P patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "ball", "blue", "rob", "##ot", ".")
CLIP_WORDS = 49408
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def random_pictures(count: int = 3, size: int = 48) -> np.ndarray:
    """Pictures with structure at several scales, so that resizing matters."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 6, 6, 3)).repeat(size // 6, axis=1).repeat(size // 6, axis=2)
    return ((3 * coarse + rng.integers(0, 256, (count, size, size, 3))) // 4).astype(np.uint8)


def transformers_clip(folder: Path, *, seed: int = 0) -> Path:
    """Write a CLIP network as transformers saves it."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**vision, "vocab_size": CLIP_WORDS, "max_position_embeddings": 77, "eos_token_id": 49407}
    config = CLIPConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 8}, text_config=text, projection_dim=16
    )
    model = CLIPModel(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    return folder


def _state(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * 0.15 + (1.0 if ".weight" in name and len(shape) == 1 else 0.0)
        for name, shape in shapes.items()
    }


def _block(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}ln_1.weight": (width,),
        f"{prefix}ln_1.bias": (width,),
        f"{prefix}attn.in_proj_weight": (3 * width, width),
        f"{prefix}attn.in_proj_bias": (3 * width,),
        f"{prefix}attn.out_proj.weight": (width, width),
        f"{prefix}attn.out_proj.bias": (width,),
        f"{prefix}ln_2.weight": (width,),
        f"{prefix}ln_2.bias": (width,),
        f"{prefix}mlp.c_fc.weight": (2 * width, width),
        f"{prefix}mlp.c_fc.bias": (2 * width,),
        f"{prefix}mlp.c_proj.weight": (width, 2 * width),
        f"{prefix}mlp.c_proj.bias": (width,),
    }


def open_clip_state(*, wide: int = 128, narrow: int = 64, seed: int = 1) -> dict[str, Tensor]:
    """Return the weights of OpenCLIP's network under its own names, as ``HPS_v2_compressed.pt`` has them."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (77, narrow),
        "text_projection": (narrow, 24),
        "logit_scale": (),
        "visual.class_embedding": (wide,),
        "visual.positional_embedding": (17, wide),
        "visual.proj": (wide, 24),
        "visual.conv1.weight": (wide, 3, 8, 8),
        **{f"visual.{name}.{kind}": (wide,) for name in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
        "token_embedding.weight": (CLIP_WORDS, narrow),
        "ln_final.weight": (narrow,),
        "ln_final.bias": (narrow,),
    }
    for layer in range(2):
        shapes |= _block(f"visual.transformer.resblocks.{layer}.", wide)
        shapes |= _block(f"transformer.resblocks.{layer}.", narrow)
    return _state(shapes, seed)


def open_clip_embeddings(
    state: Mapping[str, Tensor],
    pixels: Tensor,  # [V, 3, H, W] normalised
    words: Tensor,  # [1, 77] padded with 0
) -> tuple[Tensor, Tensor]:
    """Transcribe OpenCLIP's ``encode_image`` and ``encode_text``, normalised."""

    def blocks(x: Tensor, prefix: str, heads: int, mask: Tensor | None) -> Tensor:
        for layer in range(2):
            own = f"{prefix}transformer.resblocks.{layer}."
            width = x.shape[-1]
            attention = nn.MultiheadAttention(width, heads, batch_first=True)
            attention.load_state_dict({name: state[f"{own}attn.{name}"] for name in attention.state_dict()})
            y = F.layer_norm(x, (width,), state[f"{own}ln_1.weight"], state[f"{own}ln_1.bias"])
            x = x + attention(y, y, y, need_weights=False, attn_mask=mask)[0]
            y = F.layer_norm(x, (width,), state[f"{own}ln_2.weight"], state[f"{own}ln_2.bias"])
            y = F.gelu(F.linear(y, state[f"{own}mlp.c_fc.weight"], state[f"{own}mlp.c_fc.bias"]))
            x = x + F.linear(y, state[f"{own}mlp.c_proj.weight"], state[f"{own}mlp.c_proj.bias"])
        return x

    wide, _, patch, _ = state["visual.conv1.weight"].shape
    narrow = state["token_embedding.weight"].shape[1]
    with torch.no_grad():
        x = F.conv2d(pixels, state["visual.conv1.weight"], stride=patch).flatten(2).transpose(1, 2)
        x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1)
        x = x + state["visual.positional_embedding"]
        x = F.layer_norm(x, (wide,), state["visual.ln_pre.weight"], state["visual.ln_pre.bias"])
        x = blocks(x, "visual.", wide // 64, None)
        pooled = F.layer_norm(x[:, 0], (wide,), state["visual.ln_post.weight"], state["visual.ln_post.bias"])
        pictures = F.normalize(pooled @ state["visual.proj"], dim=-1)
        t = state["token_embedding.weight"][words] + state["positional_embedding"][: words.shape[1]]
        causal = torch.full((words.shape[1], words.shape[1]), float("-inf")).triu(1)
        t = blocks(t, "", narrow // 64, causal)
        t = F.layer_norm(t, (narrow,), state["ln_final.weight"], state["ln_final.bias"])
        text = t[torch.arange(len(t)), words.argmax(dim=-1)] @ state["text_projection"]
    return pictures, F.normalize(text, dim=-1)


def image_reward_state(*, wide: int = 128, narrow: int = 64, seed: int = 2) -> dict[str, Tensor]:
    """Return the weights of ImageReward under its own names, as ``ImageReward.pt`` has them."""
    vision, text = "blip.visual_encoder.", "blip.text_encoder."
    shapes: dict[str, tuple[int, ...]] = {
        f"{vision}cls_token": (1, 1, wide),
        f"{vision}pos_embed": (1, 17, wide),
        f"{vision}patch_embed.proj.weight": (wide, 3, 8, 8),
        f"{vision}patch_embed.proj.bias": (wide,),
        f"{vision}norm.weight": (wide,),
        f"{vision}norm.bias": (wide,),
        f"{text}embeddings.word_embeddings.weight": (len(VOCABULARY), narrow),
        f"{text}embeddings.position_embeddings.weight": (40, narrow),
        f"{text}embeddings.LayerNorm.weight": (narrow,),
        f"{text}embeddings.LayerNorm.bias": (narrow,),
    }

    def linear(name: str, into: int, out: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    for layer in range(2):
        own = f"{vision}blocks.{layer}."
        for norm in ("norm1", "norm2"):
            shapes[f"{own}{norm}.weight"] = shapes[f"{own}{norm}.bias"] = (wide,)
        linear(f"{own}attn.qkv", wide, 3 * wide)
        linear(f"{own}attn.proj", wide, wide)
        linear(f"{own}mlp.fc1", wide, 2 * wide)
        linear(f"{own}mlp.fc2", 2 * wide, wide)
        own = f"{text}encoder.layer.{layer}."
        for kind, width in (("attention", narrow), ("crossattention", wide)):
            linear(f"{own}{kind}.self.query", narrow, narrow)
            linear(f"{own}{kind}.self.key", width, narrow)
            linear(f"{own}{kind}.self.value", width, narrow)
            linear(f"{own}{kind}.output.dense", narrow, narrow)
            shapes[f"{own}{kind}.output.LayerNorm.weight"] = shapes[f"{own}{kind}.output.LayerNorm.bias"] = (narrow,)
        linear(f"{own}intermediate.dense", narrow, 2 * narrow)
        linear(f"{own}output.dense", 2 * narrow, narrow)
        shapes[f"{own}output.LayerNorm.weight"] = shapes[f"{own}output.LayerNorm.bias"] = (narrow,)
    widths = (narrow, 48, 32, 24, 16, 1)
    for place, (into, out) in zip((0, 2, 4, 6, 7), zip(widths, widths[1:], strict=False), strict=True):
        linear(f"mlp.layers.{place}", into, out)
    state = _state(shapes, seed)
    state[f"{text}embeddings.position_ids"] = torch.arange(40)[None]
    return state


def image_rewards(
    state: Mapping[str, Tensor],
    pixels: Tensor,  # [V, 3, H, W] normalised
    words: Tensor,  # [1, L]
    mask: Tensor,  # [1, L]
) -> Tensor:
    """Transcribe ``ImageReward.score`` for some pictures and one prompt."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        heads = q.shape[-1] // 64
        q, k, v = (x.unflatten(-1, (heads, 64)).transpose(1, 2) for x in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / 8.0 + bias).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)

    vision, text = "blip.visual_encoder.", "blip.text_encoder."
    with torch.no_grad():
        patch = state[f"{vision}patch_embed.proj.weight"].shape[-1]
        projection = (state[f"{vision}patch_embed.proj.weight"], state[f"{vision}patch_embed.proj.bias"])
        x = F.conv2d(pixels, *projection, stride=patch).flatten(2).transpose(1, 2)
        x = torch.cat([state[f"{vision}cls_token"].expand(len(x), -1, -1), x], dim=1) + state[f"{vision}pos_embed"]
        for layer in range(2):
            own = f"{vision}blocks.{layer}."
            q, k, v = linear(norm(x, f"{own}norm1", 1e-6), f"{own}attn.qkv").chunk(3, dim=-1)
            x = x + linear(attend(q, k, v), f"{own}attn.proj")
            x = x + linear(F.gelu(linear(norm(x, f"{own}norm2", 1e-6), f"{own}mlp.fc1")), f"{own}mlp.fc2")
        x = norm(x, f"{vision}norm", 1e-6)
        bias = ((1.0 - mask.float()) * torch.finfo(torch.float32).min)[:, None, None, :]
        own = f"{text}embeddings."
        t = state[f"{own}word_embeddings.weight"][words] + state[f"{own}position_embeddings.weight"][: words.shape[1]]
        t = norm(t, f"{own}LayerNorm", 1e-12).expand(len(x), -1, -1)
        for layer in range(2):
            own = f"{text}encoder.layer.{layer}."
            for kind, other, own_bias in (("attention", None, bias), ("crossattention", x, 0.0)):
                source = t if other is None else other
                q = linear(t, f"{own}{kind}.self.query")
                k, v = (linear(source, f"{own}{kind}.self.{part}") for part in ("key", "value"))
                seen = linear(attend(q, k, v, own_bias), f"{own}{kind}.output.dense")
                t = norm(seen + t, f"{own}{kind}.output.LayerNorm", 1e-12)
            inner = linear(F.gelu(linear(t, f"{own}intermediate.dense")), f"{own}output.dense")
            t = norm(inner + t, f"{own}output.LayerNorm", 1e-12)
        reward = t[:, 0]
        for place in (0, 2, 4, 6, 7):
            reward = linear(reward, f"mlp.layers.{place}")
    return (reward[:, 0] - 0.16717362830052426) / 1.0333394966054072


def write_image_reward(folder: Path, *, pickled: bool = False) -> Path:
    """Write ImageReward's files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    state = image_reward_state()
    if pickled:
        torch.save(state, folder / "ImageReward.pt")
    else:
        save_file(state, folder / "ImageReward.safetensors")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder


def write_hps(file: Path) -> Path:
    """Write HPS's file as its authors do: a pickle whose weights are one entry of several."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 1, "state_dict": open_clip_state()}, file)
    return file

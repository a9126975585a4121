"""Every way in which a latent diffusion model can compute, against the plain one, on a random model of toy size."""

from __future__ import annotations

import gc
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sdi_gs.configs.presets import preset_named
from sdi_gs.errors import UserError
from sdi_gs.priors.compiled_unet import CompiledUnet
from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.latent_diffusion_loading import load_latent_diffusion
from sdi_gs.priors.tuning import RememberedLinear, skip_divisions_by_one
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.settings.compute import ComputeConfig
from sdi_gs.settings.run import RunConfig
from sdi_gs.training.trainer import Trainer

CPU = torch.device("cpu")
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}
"""Of float64, where only the order of summation differs."""


def gaussians_of(trainer: Trainer) -> Gaussians:
    assert isinstance(trainer.scene.representation, Gaussians)
    return trainer.scene.representation


@pytest.fixture
def load(pristine_models: dict[str, Path]) -> Callable[..., LatentDiffusionPrior]:
    """The model under a compute config, in float64 where nothing else is said."""

    def loaded(dtype: torch.dtype = torch.float64, **levers: Any) -> LatentDiffusionPrior:
        prior = load_latent_diffusion(pristine_models["epsilon"], device="cpu", dtype=dtype)
        prior.configure(ComputeConfig(**levers))
        return prior

    return loaded


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def encoded(prior: LatentDiffusionPrior) -> tuple[Tensor, Tensor]:
    """Latents of three images, and the gradient of a loss that mixes them with respect to the images."""
    images = torch.rand(3, 64, 64, 3, generator=seeded(1), dtype=torch.float64).requires_grad_()
    latents = prior.encode_images(images, seeded(2))
    (latents.square().mean() / latents[0].square().mean()).backward()
    assert images.grad is not None
    return latents.detach(), images.grad


def predicted(prior: LatentDiffusionPrior, rows: int = 4) -> Tensor:
    latents = torch.randn(rows, 4, 8, 8, generator=seeded(3), dtype=torch.float64)
    return prior.predict_noise(latents, 500, prior.embed_prompts(["a blue robot"] * (rows - 1) + [""]))


@pytest.mark.parametrize(
    "levers",
    [
        {"views_at_once": 1},
        {"views_at_once": 2},
        {"vae": "checkpoint"},
        {"vae": "checkpoint", "views_at_once": 2},
        {"vae_views_at_once": 1},
        {"vae_views_at_once": 2, "vae": "checkpoint"},
        {"channels_last": True},
    ],
    ids=str,
)
def test_the_encoder_gives_the_same_latents_and_gradients(
    load: Callable[..., LatentDiffusionPrior], levers: dict[str, Any]
) -> None:
    (latents, gradient), (others, other_gradient) = encoded(load()), encoded(load(**levers))
    torch.testing.assert_close(others, latents, **EXACT)
    torch.testing.assert_close(other_gradient, gradient, **EXACT)
    assert gradient.count_nonzero() > 0.99 * gradient.numel()


class Divisions(TorchDispatchMode):
    """Counts divisions by the number 1."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.div.Tensor and args[1] == 1.0
        return func(*args, **(kwargs or {}))


def test_blocks_do_not_divide_by_one_and_no_bit_changes(load: Callable[..., LatentDiffusionPrior]) -> None:
    prior, dividing = load(torch.float32), load(torch.float32)
    for block in (*dividing.unet.modules(), *dividing.vae.modules()):
        for name in ("output_scale_factor", "rescale_output_factor"):
            if hasattr(block, name):
                setattr(block, name, 1.0)
    counts = []
    for each in (prior, dividing):
        with Divisions() as divisions:
            predicted(each)
            encoded(each)
        counts.append(divisions.count)
    assert counts[0] == 0 < counts[1]
    for left, right in zip((predicted(prior), *encoded(prior)), (predicted(dividing), *encoded(dividing)), strict=True):
        assert torch.equal(left, right)


def test_blocks_with_a_factor_of_their_own_keep_it() -> None:
    from diffusers.models.resnet import ResnetBlock2D

    block = ResnetBlock2D(in_channels=32, temb_channels=8, output_scale_factor=2.0).eval()
    image, time = torch.randn(1, 32, 4, 4, generator=seeded()), torch.randn(1, 8, generator=seeded(1))
    before = block(image, time)
    skip_divisions_by_one(block)
    assert torch.equal(block(image, time), before)


def kept_by_encoder(prior: LatentDiffusionPrior) -> int:
    """Bytes that a forward pass leaves for the backward pass, weights aside."""
    weights = {parameter.data_ptr() for parameter in prior.vae.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = torch.rand(4, 64, 64, 3, generator=seeded(1), dtype=torch.float64).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        latents = prior.encode_images(images, seeded(2))
    del latents
    return sum(kept.values())


def test_a_recomputing_encoder_keeps_a_fraction(load: Callable[..., LatentDiffusionPrior]) -> None:
    whole = kept_by_encoder(load())
    assert kept_by_encoder(load(vae="checkpoint")) < 0.3 * whole
    assert kept_by_encoder(load(views_at_once=1)) < 0.1 * whole
    assert kept_by_encoder(load(vae_views_at_once=1)) < 0.1 * whole


@pytest.mark.parametrize("levers", [{"attention": "plain"}, {"channels_last": True}], ids=str)
def test_the_unet_predicts_the_same(load: Callable[..., LatentDiffusionPrior], levers: dict[str, Any]) -> None:
    torch.testing.assert_close(predicted(load(**levers)), predicted(load()), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "plain"])
def test_remembered_keys_and_values_change_nothing(
    load: Callable[..., LatentDiffusionPrior], dtype: torch.dtype, attention: str
) -> None:
    plain = load(dtype, attention=attention)
    remembering = load(dtype, attention=attention, cache_cross_attention=True)
    embeddings = plain.embed_prompts(["a blue robot", ""])
    latents = torch.randn(2, 4, 8, 8, generator=seeded(3))
    for timestep in (900, 500, 100):
        expected = plain.predict_noise(latents, timestep, embeddings)
        assert torch.equal(remembering.predict_noise(latents, timestep, embeddings), expected)
    # Written to in place, the same tensor is another text.
    embeddings.mul_(0.5)
    assert torch.equal(
        remembering.predict_noise(latents, 100, embeddings), plain.predict_noise(latents, 100, embeddings)
    )


def test_the_text_is_projected_once_and_forgotten_with_its_embeddings(
    load: Callable[..., LatentDiffusionPrior],
) -> None:
    prior = load(cache_cross_attention=True)
    cross_attentions = [module for module in prior.unet.modules() if getattr(module, "is_cross_attention", False)]
    projections: list[int] = []
    for attention in cross_attentions:
        for projection in (attention.to_k, attention.to_v):
            projection.linear.register_forward_hook(lambda *_: projections.append(1))
    embeddings = prior.embed_prompts(["a blue robot", ""])
    for timestep in (900, 500, 100):
        prior.predict_noise(torch.zeros(2, 4, 8, 8, dtype=torch.float64), timestep, embeddings)
    assert len(projections) == 2 * len(cross_attentions) > 0
    widths = [attention.to_k.linear.out_features for attention in cross_attentions]
    assert remembered_bytes(prior.unet) == 2 * embeddings.shape[0] * embeddings.shape[1] * sum(widths) * 8
    del embeddings
    gc.collect()
    assert remembered_bytes(prior.unet) == 0
    prior.configure(ComputeConfig())
    assert not [name for name, _ in prior.unet.named_parameters() if "linear" in name and "attn2" in name]


def remembered_bytes(unet: Any) -> int:
    """Memory of all keys and values that a U-Net keeps."""
    kept = [module._known for module in unet.modules() if isinstance(module, RememberedLinear)]
    return sum(answer.nbytes for known in kept for _, answer in known.values())


def test_every_lever_can_be_put_back(load: Callable[..., LatentDiffusionPrior]) -> None:
    prior, untouched = load(torch.float32), load(torch.float32)
    prior.configure(
        ComputeConfig(
            views_at_once=1, vae="checkpoint", attention="plain", channels_last=True, cache_cross_attention=True
        )
    )
    predicted(prior)
    prior.configure(ComputeConfig())
    assert torch.equal(predicted(prior), predicted(untouched))
    for left, right in zip(encoded(prior), encoded(untouched), strict=True):
        assert torch.equal(left, right)


def test_the_text_encoder_is_on_the_device_only_while_it_is_asked(
    load: Callable[..., LatentDiffusionPrior], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, prior = load(), load(free_text_encoder=True)
    moves: list[str] = []
    move = prior.text_encoder.to
    monkeypatch.setattr(prior.text_encoder, "to", lambda device: moves.append(str(device)) or move(device))
    monkeypatch.setattr(type(prior.unet), "device", torch.device("cpu", 0))
    # A prompt that comes later, as by steering, fetches it back.
    for text in ("a blue robot", "a red car"):
        assert torch.equal(prior.embed_prompts([text, ""]), plain.embed_prompts([text, ""]))
    assert moves == ["cpu:0", "cpu"] * 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_unet_predicts_the_same(load: Callable[..., LatentDiffusionPrior]) -> None:
    compiled, plain = load(torch.float32, compile_unet=True), load(torch.float32)
    for rows in (4, 2):
        torch.testing.assert_close(predicted(compiled, rows), predicted(plain, rows), rtol=1e-4, atol=1e-5)


def test_without_a_compiler_the_unet_runs_uncompiled_with_one_line(
    load: Callable[..., LatentDiffusionPrior], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    fix = r"because a C\+\+ compiler is missing: install it, or leave --compute.compile-unet out$"
    with pytest.warns(UserWarning, match=fix) as said:
        prior = load(compile_unet=True)
    assert len(said) == 1 and "\n" not in str(said[0].message)
    assert prior.slow_start is None
    assert torch.equal(predicted(prior), predicted(load()))


def test_weights_of_half_precision_compute_in_float32_and_come_back_to_the_bit(
    load: Callable[..., LatentDiffusionPrior],
) -> None:
    prior = load(torch.bfloat16)
    before = predicted(prior)
    prior.configure(ComputeConfig(precision="float32"))
    weights = dict(load(torch.bfloat16).unet.named_parameters())
    assert prior.unet.dtype == torch.float32
    assert all(torch.equal(value, weights[name].float()) for name, value in prior.unet.named_parameters())
    assert 0.0 < (predicted(prior) - before).norm() < 0.05 * before.norm()
    # What fails changes nothing.
    with pytest.raises(UserError):
        prior.configure(ComputeConfig(cuda_graphs=True))
    assert prior.unet.dtype == torch.float32
    prior.configure(ComputeConfig())
    assert torch.equal(predicted(prior), before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_unet_that_cannot_be_compiled_goes_on_uncompiled_with_one_line(
    load: Callable[..., LatentDiffusionPrior], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise ValueError("no such instruction: fma\nfour hundred lines of assembly")

    monkeypatch.setattr("torch.compile", partial(torch.compile, backend=failing))
    plain, broken = load(torch.float32), load(torch.float32, compile_unet=True)
    assert broken.slow_start is not None
    with pytest.warns(UserWarning, match="runs uncompiled from here: ValueError: no such instruction: fma$") as said:
        first = predicted(broken, 4)
    assert "\n" not in str(said[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(predicted(broken, 4), first)
    assert torch.equal(first, predicted(plain, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_compiler_gets_the_unet_as_one_graph(
    load: Callable[..., LatentDiffusionPrior], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []

    def counting(graph: Any, _: object) -> Any:
        graphs.append(graph)
        return graph

    monkeypatch.setattr("torch.compile", partial(torch.compile, backend=counting))
    predicted(load(torch.float32, compile_unet=True))
    assert len(graphs) == 1


def test_memory_that_runs_out_while_compiling_is_a_matter_of_tiers() -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def full(*_: object, **__: object) -> None:
        raise BackendCompilerFailed("inductor", torch.OutOfMemoryError("CUDA out of memory"), None)

    unet = CompiledUnet(None, lambda _: full)
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        unet(torch.zeros(1), torch.zeros(1), encoder_hidden_states=torch.zeros(1))


# ---- whole steps ----


def settings(prior: str, **compute: Any) -> RunConfig:
    base = preset_named("smoke").config
    guidance = replace(base.guidance, guidance_scale=7.5, perp_neg=True, random_fraction=0.0, inversion_steps=3)
    return replace(
        base,
        prompt="a blue robot",
        prior=prior,
        steps=6,
        views_per_step=3,
        guidance=guidance,
        gaussians=replace(base.gaussians, num_initial=100),
        compute=ComputeConfig(**compute),
    )


def first_gradients(prior: LatentDiffusionPrior, config: RunConfig) -> tuple[dict[str, Tensor], Trainer]:
    """The gradients that the first step's optimisers get."""
    trainer, gradients = Trainer(config, prior, device=CPU), {}
    # Round ones would have no gradient in their rotation.
    gaussians_of(trainer).params["scales"].data += 0.3 * torch.randn(100, 3, generator=seeded(9))
    update = trainer.scene.update

    def watched(*arguments: Any, **options: Any) -> None:
        gradients.update({name: value.clone() for name, value in trainer.scene.gradients().items()})
        update(*arguments, **options)

    trainer.scene.update = watched  # pyright: ignore[reportAttributeAccessIssue]
    trainer.train_step()
    return gradients, trainer


@pytest.mark.slow
@pytest.mark.parametrize(
    "levers",
    [
        {"views_at_once": 1},
        {"views_at_once": 2, "branches_at_once": 3},
        {"branches_at_once": 1, "cache_cross_attention": True},
        {"vae": "checkpoint", "free_text_encoder": True, "channels_last": True, "attention": "plain"},
        {"views_at_once": 1, "branches_at_once": 1, "vae": "checkpoint", "cache_cross_attention": True},
        {"vae_views_at_once": 1},
        {"vae_views_at_once": 2, "views_at_once": 1, "vae": "checkpoint"},
    ],
    ids=str,
)
def test_a_step_has_the_same_gradients_and_draws_under_every_lever(
    pristine_models: dict[str, Path], levers: dict[str, Any]
) -> None:
    folder = str(pristine_models["epsilon"])

    def step(**compute: Any) -> tuple[dict[str, Tensor], Trainer]:
        prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float64)
        return first_gradients(prior, settings(folder, **compute))

    (plain, trainer), (levered, other) = step(), step(**levers)
    assert set(plain) == set(levered)
    for name, gradient in plain.items():
        # The cloud is in float32.
        torch.testing.assert_close(levered[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))
    for name in ("host_generator", "device_generator"):
        assert torch.equal(getattr(trainer, name).get_state(), getattr(other, name).get_state()), name
    assert trainer.last_views is not None
    assert other.last_views is not None
    torch.testing.assert_close(other.last_views.target, trainer.last_views.target, rtol=1e-6, atol=1e-7)
    assert torch.equal(other.last_views.rgb, trainer.last_views.rgb)


def test_levers_can_be_pulled_while_a_run_trains(pristine_models: dict[str, Path]) -> None:
    folder = str(pristine_models["epsilon"])
    prior = load_latent_diffusion(folder, device="cpu", dtype=torch.float32)
    trainer = Trainer(settings(folder), prior, device=CPU)
    trainer.train_step()
    compute = ComputeConfig(views_at_once=1, vae="checkpoint", free_text_encoder=True)
    changed = trainer.change_settings(replace(trainer.config, compute=compute))
    assert set(changed) == {"compute.views_at_once", "compute.vae", "compute.free_text_encoder"}
    assert prior.compute == compute
    assert trainer.train_step().step == 2
    # Steering still finds the text encoder.
    trainer.change_settings(replace(trainer.config, prompt="a red car"))
    assert trainer.train_step().step == 3


def test_prompts_are_embedded_once_per_run(
    load: Callable[..., LatentDiffusionPrior], monkeypatch: pytest.MonkeyPatch
) -> None:
    prior, calls = load(torch.float32), []
    embed = prior.embed_prompts
    monkeypatch.setattr(prior, "embed_prompts", lambda prompts: calls.append(len(prompts)) or embed(prompts))
    trainer = Trainer(settings("tiny"), prior, device=CPU)
    for _ in range(3):
        trainer.train_step()
    # Four sides on three backgrounds, and no prompt.
    assert calls == [13]

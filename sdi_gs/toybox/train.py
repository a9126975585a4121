"""Train toybox's networks: ``python -m sdi_gs.toybox.train vae|decoder|unet|judge --out FOLDER [--resume]``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sdi_gs.errors import UserError
from sdi_gs.toybox.judge import load_judge
from sdi_gs.toybox.training.autoencoder import (
    DecoderTask,
    VaeTask,
    VaeTrainingConfig,
    normalise_latents,
    vae_of,
)
from sdi_gs.toybox.training.denoiser import UnetTask, UnetTrainingConfig, build_networks
from sdi_gs.toybox.training.judging import JudgeTask, JudgeTrainingConfig
from sdi_gs.toybox.training.latents import encode_examples, load_latents
from sdi_gs.toybox.training.loop import LoopConfig, averaged_weights, train
from sdi_gs.toybox.training.vocabulary import write_tokenizer

VAE = VaeTrainingConfig()
DECODER = VaeTrainingConfig(loop=LoopConfig(steps=6000, learning_rate=1e-3))
JUDGE = JudgeTrainingConfig()
UNET = UnetTrainingConfig()


def train_vae(out: Path, resume: bool = False, config: VaeTrainingConfig = VAE) -> None:
    """The whole VAE; ``out/vae`` is the result, with latents of unit variance.

    Args:
        out: folder of checkpoints, log, sheets and the result.
        resume: go on with the run in ``out``.
        config: network and training.
    """
    if train(config.loop, VaeTask(config), out, resume=resume) is None:
        return
    vae = vae_of(averaged_weights(out), config)
    print("former latent statistics:", normalise_latents(vae, config.examples))
    vae.save_pretrained(out / "vae")


def train_decoder(
    vae: Path,
    out: Path,
    resume: bool = False,
    config: VaeTrainingConfig = DECODER,
) -> None:
    """The VAE's decoder alone, from a frozen encoder; ``out/vae`` is the result.

    Args:
        vae: the VAE to begin with, as ``train vae`` writes it.
        out: folder of checkpoints, log, sheets and the result.
        resume: go on with the run in ``out``.
        config: training; the network's shape is that of ``vae``.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    task = DecoderTask(config, AutoencoderKL.from_pretrained(vae))
    averaged = train(config.loop, task, out, resume=resume)
    if averaged is not None:
        task.assembled(averaged).save_pretrained(out / "vae")


def train_judge(out: Path, resume: bool = False, config: JudgeTrainingConfig = JUDGE) -> None:
    """The judge; ``out/judge.safetensors`` is the result, in half precision.

    Args:
        out: folder of checkpoints, log, sheets and the result.
        resume: go on with the run in ``out``.
        config: pictures and training.
    """
    from safetensors.torch import save_file

    averaged = train(config.loop, JudgeTask(config), out, resume=resume)
    if averaged is not None:
        weights = {name: value.half().contiguous() for name, value in averaged.state_dict().items()}
        save_file(weights, out / "judge.safetensors")


def train_unet(
    vae: Path,
    out: Path,
    judge: Path | None = None,
    resume: bool = False,
    config: UnetTrainingConfig = UNET,
) -> None:
    """U-Net and text encoder; ``out/tokenizer``, ``out/unet`` and ``out/text_encoder`` are the result.

    Args:
        vae: the folder of a trained VAE; its encoder must be final, its decoder only draws the sheets.
        out: folder of latents, checkpoints, log, sheets and the result.
        judge: weights of a judge whose verdicts on samples are logged; it has no part in the training.
        resume: go on with the run in ``out``.
        config: networks and training.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import CLIPTokenizer

    write_tokenizer(out / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer", local_files_only=True)
    network = AutoencoderKL.from_pretrained(vae).requires_grad_(False).eval().to(memory_format=torch.channels_last)
    cached = out / "latents.pt"
    if not cached.exists():
        encode_examples(network, config.examples, config.num_latents).save(cached)
    task = UnetTask(
        config,
        load_latents(cached),
        encode_examples(network, config.examples, 500, split="val"),
        tokenizer=tokenizer,
        vae=network,
        judge=None if judge is None else load_judge(judge),
    )
    if train(config.loop, task, out, resume=resume) is not None:
        save_networks(out, config)


def save_networks(out: Path, config: UnetTrainingConfig = UNET) -> None:
    """Write the averaged U-Net and text encoder of a run's last checkpoint, finished or not, beside it.

    Args:
        out: the run's folder.
        config: that of the run.
    """
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer", local_files_only=True)
    networks = build_networks(config, tokenizer)
    networks.load_state_dict(averaged_weights(out))
    for name, network in networks.items():
        network.save_pretrained(out / name)


def main() -> None:
    """Run one of the trainings on one thread; exit code 2 and one line for a UserError."""
    import tyro

    torch.set_num_threads(1)
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"vae": train_vae, "decoder": train_decoder, "judge": train_judge, "unet": train_unet}
        )
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

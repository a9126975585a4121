"""Train toybox's networks: ``python -m sdi_gs.toybox.train vae|decoder|unet|judge --out FOLDER [--resume]``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sdi_gs.errors import UserError
from sdi_gs.toybox.training.autoencoder import (
    DecoderTask,
    VaeTask,
    VaeTrainingConfig,
    normalise_latents,
    vae_of,
)
from sdi_gs.toybox.training.judging import JudgeTask, JudgeTrainingConfig
from sdi_gs.toybox.training.loop import LoopConfig, averaged_weights, train


def train_vae(out: Path, resume: bool = False, config: VaeTrainingConfig = VaeTrainingConfig()) -> None:
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
    config: VaeTrainingConfig = VaeTrainingConfig(loop=LoopConfig(steps=6000, learning_rate=1e-3)),
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


def train_judge(out: Path, resume: bool = False, config: JudgeTrainingConfig = JudgeTrainingConfig()) -> None:
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


def main() -> None:
    """Run one of the trainings on one thread; exit code 2 and one line for a UserError."""
    import tyro

    torch.set_num_threads(1)
    try:
        tyro.extras.subcommand_cli_from_dict({"vae": train_vae, "decoder": train_decoder, "judge": train_judge})
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

"""Train toybox's networks: ``python tools/train_toybox.py vae|decoder|unet|judge --out FOLDER [--resume]``.

``assemble`` makes a prior of them, and ``measure`` measures one (docs/reports/toybox-prior.md). Two processes train
together under ``python -m torch.distributed.run --nproc-per-node 2 tools/train_toybox.py ...``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from toybox_training.assessment import AssessmentConfig, assess
from toybox_training.autoencoder import (
    DecoderTask,
    VaeTask,
    VaeTrainingConfig,
    normalise_latents,
    vae_of,
)
from toybox_training.card import update_card
from toybox_training.denoiser import UnetTask, UnetTrainingConfig, build_networks
from toybox_training.folder import load_networks, load_vae, write_folder
from toybox_training.judging import JudgeTask, JudgeTrainingConfig
from toybox_training.latents import encode_examples, load_latents
from toybox_training.loop import LoopConfig, averaged_weights, train
from toybox_training.vocabulary import write_tokenizer
from toybox_training.workers import run_program, workers_of_environment

from sdi_gs.errors import UserError
from sdi_gs.toybox.judge import JUDGE_FILE, load_judge

VAE = VaeTrainingConfig()
DECODER = VaeTrainingConfig(loop=LoopConfig(steps=6000, learning_rate=1e-3))
JUDGE = JudgeTrainingConfig()
UNET = UnetTrainingConfig()
ASSESSMENT = AssessmentConfig()


def train_vae(out: Path, start: Path | None = None, resume: bool = False, config: VaeTrainingConfig = VAE) -> None:
    """Train the whole VAE; the result is ``out/vae``, with latents of unit variance.

    Args:
        out: folder of checkpoints, log, sheets and the result.
        start: folder of a VAE to start from; it is trained for a new cycle.
        resume: continue the run in ``out``.
        config: network and training.
    """
    with workers_of_environment() as workers:
        task = VaeTask(config, start=None if start is None else load_vae(start))
        averaged = train(config.loop, task, out, resume=resume, workers=workers)
        if averaged is None or workers.rank > 0:
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
    """Train the VAE's decoder alone behind a frozen encoder; the result is ``out/vae``.

    Args:
        vae: folder of the VAE to start from, as the command ``vae`` writes it.
        out: folder of checkpoints, log, sheets and the result.
        resume: continue the run in ``out``.
        config: training; the network's shape is that of ``vae``.
    """
    task = DecoderTask(config, load_vae(vae))
    with workers_of_environment() as workers:
        averaged = train(config.loop, task, out, resume=resume, workers=workers)
    if averaged is not None and workers.rank == 0:
        task.assembled(averaged).save_pretrained(out / "vae")


def train_judge(out: Path, resume: bool = False, config: JudgeTrainingConfig = JUDGE) -> None:
    """Train the judge; the result is ``out/judge.safetensors``, in half precision.

    Args:
        out: folder of checkpoints, log, sheets and the result.
        resume: continue the run in ``out``.
        config: pictures and training.
    """
    from safetensors.torch import save_file

    with workers_of_environment() as workers:
        averaged = train(config.loop, JudgeTask(config), out, resume=resume, workers=workers)
    if averaged is not None and workers.rank == 0:
        weights = {name: value.half().contiguous() for name, value in averaged.state_dict().items()}
        save_file(weights, out / "judge.safetensors")


def train_unet(
    vae: Path,
    out: Path,
    judge: Path | None = None,
    start: Path | None = None,
    resume: bool = False,
    config: UnetTrainingConfig = UNET,
) -> None:
    """Train U-Net and text encoder; ``assemble`` makes a folder of them, also before the last step.

    Args:
        vae: folder of a trained VAE; its encoder must be final, its decoder is used for the sheets only.
        out: folder of latents, checkpoints, log, sheets and the result.
        judge: weights of a judge that scores samples for the log; it does not influence the training.
        start: folder written by ``assemble`` to start from; its networks are trained for a new cycle.
        resume: continue the run in ``out``.
        config: networks and training.
    """
    from transformers import CLIPTokenizer

    with workers_of_environment() as workers:
        if workers.rank == 0:
            write_tokenizer(out / "tokenizer")
        workers.wait()
        tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer", local_files_only=True)
        network, cached = load_vae(vae).to(config.loop.device), out / "latents.pt"
        known = cached.exists()
        workers.wait()
        latents = (
            load_latents(cached)
            if known
            else encode_examples(
                network, config.examples, config.num_latents, workers=workers, feeders=config.loop.feeders
            )
        )
        if not known and workers.rank == 0:
            latents.save(cached)
        task = UnetTask(
            config,
            latents,
            encode_examples(network, config.examples, 500, split="val"),
            tokenizer=tokenizer,
            vae=network,
            judge=None if judge is None else load_judge(judge),
        )
        if start is not None:
            for name, network in load_networks(start)[0].items():
                task.networks[name].load_state_dict(network.state_dict())
        train(config.loop, task, out, resume=resume, workers=workers)


def assemble(vae: Path, unet: Path, out: Path, config: UnetTrainingConfig = UNET) -> None:
    """Write the averaged networks of the last checkpoints, finished or not, as one folder in SD 2.1's layout.

    Args:
        vae: the folder of a trained VAE.
        unet: the folder of the U-Net's training.
        out: the folder to write; it must not exist.
        config: the config of the U-Net's training.
    """
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(unet / "tokenizer", local_files_only=True)
    networks = build_networks(config, tokenizer)
    networks.load_state_dict(averaged_weights(unet))
    write_folder(out, vae=load_vae(vae), unet=networks["unet"], text_encoder=networks["text_encoder"])


def measure(folder: Path, out: Path, judge: Path = JUDGE_FILE, config: AssessmentConfig = ASSESSMENT) -> None:
    """Measure a folder in SD 2.1's layout: VAE, and judged samples of seen and held-out pairs at several scales.

    Args:
        folder: the folder to measure.
        out: folder for ``assessment.json`` and the sheets.
        judge: the judge's weights.
        config: amount of samples and device.
    """
    out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(assess(folder, out, load_judge(judge), config)))


def write_card(
    card: Path,
    assessment: Path,
    vae: Path | None = None,
    decoder: Path | None = None,
    unet: Path | None = None,
    judge: Path | None = None,
) -> None:
    """Write measured tables into a model card, between its two markers.

    Args:
        card: the Markdown file.
        assessment: the ``assessment.json`` of ``measure``.
        vae: folder of the VAE's training, to show its learning curve.
        decoder: folder of the decoder's training, likewise.
        unet: folder of the U-Net's training, likewise.
        judge: folder of the judge's training, likewise.
    """
    runs = {"VAE": vae, "VAE's decoder": decoder, "U-Net": unet, "judge": judge}
    update_card(card, assessment, {name: run for name, run in runs.items() if run is not None})


def main() -> None:
    """Run one of the trainings on one thread; exit code 2 and one line for a UserError."""
    import numba
    import tyro

    torch.set_num_threads(1)
    numba.set_num_threads(1)
    try:
        tyro.extras.subcommand_cli_from_dict(
            {
                "vae": train_vae,
                "decoder": train_decoder,
                "judge": train_judge,
                "unet": train_unet,
                "assemble": assemble,
                "measure": measure,
                "card": write_card,
            }
        )
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run_program(main)

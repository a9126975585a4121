"""The networks that are known by name, and where their weights are published; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class HubFiles:
    """Files of one repository on the hub."""

    repo_id: str
    """``owner/name``."""
    wanted: tuple[str, ...]
    """Patterns of the files that are used."""
    revision: str | None = None
    """Commit; None for the newest, which the manifest records."""


@dataclass(frozen=True, kw_only=True)
class KnownNetwork:
    """A network known by name."""

    name: str
    """Value of ``--networks.*`` and of ``sdi-gs priors fetch``."""
    summary: str
    """What it is, for lists."""
    files: tuple[HubFiles, ...]
    """The weights' repository first."""
    licence: str
    """Licence of the weights."""
    download_bytes: int
    """Size of the download, about."""


_TRANSFORMERS = ("config.json", "model.safetensors", "model-*-of-*.safetensors", "pytorch_model.bin")


def _clip(name: str, summary: str, repo_id: str, size: int, licence: str = "MIT") -> KnownNetwork:
    files = (HubFiles(repo_id=repo_id, wanted=_TRANSFORMERS),)
    return KnownNetwork(name=name, summary=summary, files=files, licence=licence, download_bytes=size)


def _hps(name: str, version: str) -> KnownNetwork:
    return KnownNetwork(
        name=name,
        summary=f"HPS {version}, OpenCLIP ViT-H/14 trained on human choices",
        files=(HubFiles(repo_id="xswu/HPSv2", wanted=(f"HPS_{version}_compressed.pt",)),),
        licence="Apache-2.0",
        download_bytes=1_970_000_000,
    )


KNOWN: tuple[KnownNetwork, ...] = (
    _clip("clip-b32", "OpenAI CLIP ViT-B/32", "openai/clip-vit-base-patch32", 605_000_000),
    _clip("clip-b16", "OpenAI CLIP ViT-B/16", "openai/clip-vit-base-patch16", 599_000_000),
    _clip("clip-l14", "OpenAI CLIP ViT-L/14", "openai/clip-vit-large-patch14", 1_710_000_000),
    _clip("clip-bigg", "OpenCLIP ViT-bigG/14, LAION-2B", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", 10_160_000_000),
    KnownNetwork(
        name="image-reward",
        summary="ImageReward 1.0, BLIP trained on human rankings",
        files=(
            HubFiles(repo_id="THUDM/ImageReward", wanted=("ImageReward.pt",)),
            HubFiles(repo_id="google-bert/bert-base-uncased", wanted=("vocab.txt",)),
        ),
        licence="Apache-2.0",
        download_bytes=1_790_000_000,
    ),
    _hps("hps-v2", "v2"),
    _hps("hps-v2.1", "v2.1"),
)
"""Every known network."""


def known_network(name: str) -> KnownNetwork | None:
    """Return the network of that name, or None."""
    return next((network for network in KNOWN if network.name == name), None)

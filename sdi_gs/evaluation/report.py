"""The report of an evaluation: the manifest that makes its numbers repeatable, a line per scene, means."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sdi_gs.evaluation.aggregates import aggregates, as_json
from sdi_gs.evaluation.many import Scored, Scoring
from sdi_gs.evaluation.protocol_views import cameras_of
from sdi_gs.files import make_new_folder, write_atomically
from sdi_gs.runs.provenance import versions
from sdi_gs.toybox.truth import held_out_cameras

REPORT, LINES = "eval.json", "eval.jsonl"
"""Files of a report's folder."""


def manifest(scoring: Scoring, *, device: torch.device | str) -> dict[str, Any]:
    """Return all that the numbers depend on besides the scenes."""
    cameras = len(cameras_of(scoring.protocol, None))
    return {
        "versions": versions(),
        "git": git_commit(),
        "machine": {"device": _device_name(torch.device(device)), "system": platform.platform()},
        "metrics": None if scoring.metrics is None else [metric.name for metric in scoring.metrics],
        "views": {**scoring.protocol.as_json(), "cameras": cameras},
        "truth": {
            "cameras": len(held_out_cameras(scoring.image_size)),
            "size": scoring.image_size,
            "draws": scoring.num_draws,
            "background": "white",
        },
        "networks": scoring.networks.records(),
        "prompts_to_choose_among": len(scoring.prompts),
        # Truth's members come from a stream of toybox's own; nothing else is drawn.
        "seed": None,
        "scales": {"clip_score": "100 * cosine, at least 0", "clip_cosine": "cosine", "hps": "cosine"},
    }


def report_json(scored: Sequence[Scored], scoring: Scoring, *, device: torch.device | str) -> dict[str, Any]:
    """Return the whole report as plain values."""
    failed = [one for one in scored if one.failure is not None]
    skipped = {name: why for one in scored for name, why in (one.evaluation.skipped or {}).items()}
    return {
        "manifest": manifest(scoring, device=device),
        "counts": {
            "scenes": len(scored),
            "failed": len(failed),
            "prompts": len({one.evaluation.prompt for one in scored}),
        },
        "skipped": skipped,
        "aggregates": as_json(aggregates(scored)),
        "scenes": [one.as_json() for one in scored],
    }


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Write ``eval.json``, and ``eval.jsonl`` with a line per scene, into a new folder; UserError if it exists."""
    make_new_folder(folder)
    lines = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in report["scenes"])
    write_atomically(folder / LINES, lines.encode("utf-8", "backslashreplace"))
    text = json.dumps(report, indent=2, ensure_ascii=False)
    write_atomically(folder / REPORT, f"{text}\n".encode("utf-8", "backslashreplace"))


def git_commit() -> str | None:
    """Return the commit of the checkout that this package is, with "+" if it is changed; None for an installed one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)

"""Tables of the model card, written from measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sdi_gs.errors import UserError
from toybox_training.loop import LOG_FILE

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def update_card(card: Path, assessment: Path, runs: dict[str, Path]) -> None:
    """Write the tables of an assessment and of the runs' logs between the card's two markers.

    Raises UserError if a file or a marker is missing.
    """
    for path in (card, assessment, *(run / LOG_FILE for run in runs.values())):
        if not path.is_file():
            raise UserError(f"{path} is not there: run the training and the measurement first")
    text = card.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(f"{card} lacks the lines {BEGIN} and {END}, between which the tables go")
    tables = [*assessment_tables(json.loads(assessment.read_text(encoding="utf-8")))]
    for name, run in runs.items():
        tables += [f"### Learning curve: {name}", curve_table(run)]
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    card.write_text(head + BEGIN + "\n\n" + "\n\n".join(tables) + "\n\n" + END + tail, encoding="utf-8")


def assessment_tables(scores: dict[str, Any]) -> list[str]:
    """Format the results of ``assess`` as Markdown."""
    vae, samples = scores["vae"], scores["samples"]
    sizes = [
        [name, f"{scores['parameters'][name] / 1e6:.2f} M", f"{scores['bytes'][name] / 1e6:.1f} MB"]
        for name in scores["bytes"]
    ]
    errors = [[name, f"{100.0 * error:.1f} %"] for name, error in vae["colour_error"].items()]
    rows = [
        [scale, *(_share(samples[which][scale][what]) for which in samples for what in ("class", "colour", "view"))]
        for scale in next(iter(samples.values()))
    ]
    heads = [f"{which.replace('_', ' ')}: {what}" for which in samples for what in ("class", "colour", "view")]
    total = sum(scores["bytes"].values()) / 1e6
    return [
        "### Size",
        markdown_table(["part", "parameters", "float16"], [*sizes, ["together", "", f"{total:.1f} MB"]]),
        "### VAE",
        f"Held-out renders: {vae['psnr']:.1f} dB, on the object alone {vae['object_psnr']:.1f} dB. Error of the"
        " object's mean colour:",
        markdown_table(["colour", "mean absolute error"], errors),
        "### Samples",
        f"{scores['samples_per_cell']} samples per cell, {scores['ddim_steps']} DDIM steps, judged:",
        markdown_table(["guidance scale", *heads], rows),
    ]


def curve_table(run: Path) -> str:
    """Return the lines of a log with measurements on held-out data."""
    lines = [json.loads(line) for line in (run / LOG_FILE).read_text(encoding="utf-8").splitlines()]
    measured = [line for line in lines if any(key.startswith(("held_out", "judged")) for key in line)]
    if not measured:
        raise UserError(f"{run / LOG_FILE} holds no measurement yet")
    rows = [{"step": line["step"], "CPU minutes": line["cpu_seconds"] / 60.0, **_numbers(line)} for line in measured]
    heads = list(rows[-1])
    return markdown_table(heads, [[_figure(row.get(head)) for head in heads] for row in rows])


def _numbers(line: dict[str, Any]) -> dict[str, float]:
    """Return all numbers of the measurements; nested ones by both names."""
    out = {}
    for key, value in line.items():
        if isinstance(value, dict):
            out |= {f"{key.replace('_', ' ')} {k}": v for k, v in value.items() if isinstance(v, float)}
        elif key.startswith("held_out"):
            out[key.replace("_", " ")] = value
    return out


def markdown_table(heads: list[str], rows: list[list[str]]) -> str:
    """Format a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _share(value: float) -> str:
    return f"{100.0 * value:.0f} %"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:d}" if isinstance(value, int) else f"{value:.3g}"

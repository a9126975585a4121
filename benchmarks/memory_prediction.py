"""Predict peak memory and time of a Stable Diffusion 2.1 step on cards, and validate the prediction on this CPU.

    python benchmarks/memory_prediction.py                      # the tables, minutes
    python benchmarks/memory_prediction.py --docs docs/reports/gpu-memory.md   # and write them into the page
    python benchmarks/memory_prediction.py --rows rows.jsonl    # keep counted rows, and count only missing ones
    python benchmarks/memory_prediction.py --validate           # measured steps beside counted ones, minutes

Measurements on a card come from ``--measured``, the record of ``steps_on_card.py``. ``--validate`` runs each case in
its own process: it warms up at a small size, resets the system's high-water mark of resident memory, takes one step and
reads the mark, which includes kernels' own buffers. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tools_on_path  # noqa: F401
from memory_cases import cases
from memory_counting.counting import count_round, count_step, published_prior
from memory_counting.prediction import card_precision, from_count
from memory_tables import gib, markdown, measured_table, rows_of, validation_table

from sdi_gs.priors.latent_diffusion import LatentDiffusionPrior
from sdi_gs.priors.published import ModelName
from sdi_gs.settings.run import RunConfig

PACKAGE_DATA = Path(__file__).parents[1] / "sdi_gs" / "runs" / "predicted_memory.json"
VALIDATIONS = (
    *("toy-64", "toy-128", "toy-views-in-turn", "toy-checkpoint", "toy-pixels", "toy-pixels-kept"),
    *("toy-field", "toy-field-rays", "toy-four-views", "toybox"),
    *("vae-128", "vae-256", "decoder-128", "unet-256"),
)


def tables(kept: Path | None, only: Callable[[str, int], bool]) -> dict[str, Any]:
    """Return every wanted row, from the file of counted rows or newly counted."""
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept is not None and kept.exists() else []
    priors: dict[tuple[ModelName, int], Any] = {}
    rows = []
    for table, size, config, labels in cases():
        key = {"table": table, "size": size, **labels}
        row = next((row for row in known if all(row.get(name) == value for name, value in key.items())), None)
        if row is None:
            if not only(table, size):
                continue
            model: ModelName = "mvdream" if table == "four_views" else "sd21-base"
            if (model, size) not in priors:
                dtype = card_precision(config.compute.precision)
                priors[model, size] = published_prior(model, image_size=size, dtype=dtype)
            row = {**key, **_counted(config, priors[model, size])}
            print(f"{key}: {gib(row['peak_bytes'])}", flush=True)
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        rows.append(row)
    return {"rows": rows}


def _counted(config: RunConfig, prior: LatentDiffusionPrior) -> dict[str, Any]:
    """Return the row of a step, or with replay that of a round: memory of both kinds of step, seconds of each."""
    if config.replay.steps_per_target == 1:
        return from_count(count_step(config, prior), config).as_json()
    first, later = (from_count(count, config) for count in count_round(config, prior))
    peak = max(first.peak_bytes, later.peak_bytes)
    replayed = {"replayed_seconds": later.seconds, "replayed_tensor_bytes": later.tensor_bytes}
    return first.as_json() | replayed | {"peak_bytes": peak}


def write_docs(path: Path, sections: dict[str, str]) -> None:
    """Write tables between the markers with their names."""
    text = path.read_text(encoding="utf-8")
    for name, table in sections.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        text, found = marked.subn(lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text)
        if not found:
            raise SystemExit(f"{path} has no markers of the table {name}")
    path.write_text(text, encoding="utf-8")


def write_package_data(report: dict[str, Any]) -> None:
    """Write the rows that ``sdi-gs doctor`` reads into the package; rows that were not counted now are kept."""
    rows = json.loads(PACKAGE_DATA.read_text(encoding="utf-8"))
    for row in (*rows_of(report, "tiers"), *rows_of(report, "field_tiers")):
        key = ":".join((row["tier"], str(row["size"]), *([row["field"]] if "field" in row else [])))
        rows[key] = {name: row[name] for name in ("peak_bytes", "seconds", "parts_seconds")}
    for row in rows_of(report, "four_views"):
        key = f"{row['tier']}:{row['size']}{':mvdream' if row['scene'] == 'field' else ''}"
        rows[key] = {name: row[name] for name in ("peak_bytes", "seconds", "parts_seconds")}
    for row in rows_of(report, "replay"):
        if row["space"] == "pixels":
            rows[f"{row['tier']}:{row['size']}:pixels"] = {
                name: row[name] for name in ("peak_bytes", "seconds", "replayed_seconds", "parts_seconds")
            }
    for row in rows_of(report, "check"):
        rows[f"{row['tier']}:{row['size']}:check"] = {
            name: row[name] for name in ("tensor_bytes", "views", "gaussians")
        }
    PACKAGE_DATA.write_text(f"{json.dumps(rows, indent=1)}\n", encoding="utf-8")


def validate(names: list[str]) -> list[dict[str, Any]]:
    """Run each case in a process that returns large blocks to the system as soon as they are freed."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    script = Path(__file__).with_name("memory_validation.py")
    rows = []
    for name in names:
        done = subprocess.run(
            [sys.executable, str(script), name], env=environment, check=True, capture_output=True, text=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Count and print; with ``--docs`` write the tables, with ``--validate`` measure instead."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--docs", type=Path, help="the page whose marked tables are replaced")
    parser.add_argument("--validate", nargs="*", choices=VALIDATIONS, help="cases to measure; all if none is named")
    parser.add_argument("--rows", type=Path, help="file of rows counted before, to which new ones are added")
    parser.add_argument("--measured", type=Path, help="what steps_on_card.py recorded, to be set beside the rows")
    parser.add_argument("--only", nargs="*", help="tables to count, or sizes of one, as in steps:512; all if not given")
    options = parser.parse_args()
    if options.validate is not None:
        rows = validate(options.validate or list(VALIDATIONS))
        sections, report = {"validation": validation_table(rows)}, {"validation": rows}
    else:
        wanted: list[str] | None = options.only
        report = tables(
            options.rows, lambda table, size: wanted is None or not {table, f"{table}:{size}"}.isdisjoint(wanted)
        )
        sections = markdown(report)
        if options.measured is not None:
            sections["measured"] = measured_table(report, json.loads(options.measured.read_text(encoding="utf-8")))
        if options.docs is not None:
            write_package_data(report)
    if options.docs is not None:
        write_docs(options.docs, sections)
    print("\n\n".join(sections.values()))
    print(json.dumps(report))


if __name__ == "__main__":
    main()

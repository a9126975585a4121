"""Peak memory and time of a step with Stable Diffusion 2.1, predicted for cards; and the prediction against this CPU.

    python benchmarks/memory_prediction.py                      # the tables, minutes
    python benchmarks/memory_prediction.py --docs docs/gpu-memory.md   # and into the docs, between their markers
    python benchmarks/memory_prediction.py --rows rows.jsonl    # keep what was counted, and count only what is missing
    python benchmarks/memory_prediction.py --validate           # measured steps beside counted ones, minutes

Nothing in the tables was measured on a card. ``--validate`` runs each case in a process of its own, lets it warm up at
a small size, resets the system's high-water mark of resident memory, takes one step and reads the mark: what the
operating system saw, kernels' own buffers included. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sdi_gs.compute_config import ComputeConfig
from sdi_gs.configs.presets import preset_named
from sdi_gs.planning.cards import BANDWIDTH_SHARE, CARDS, HOST_SECONDS
from sdi_gs.planning.counting import count_step, published_prior
from sdi_gs.planning.prediction import CONTEXT_BYTES, card_precision, from_count
from sdi_gs.planning.tiers import TIERS
from sdi_gs.representations.ngp.config import PUBLISHED, NgpConfig
from sdi_gs.run_config import RunConfig

GIB, MIB = 2**30, 2**20
PACKAGE_DATA = Path(__file__).parents[1] / "sdi_gs" / "planning" / "predicted.json"
SIZES, VIEWS, CLOUDS = (256, 512, 768), (1, 2, 4), (50_000, 200_000, 1_000_000)
USUAL_CLOUD = 200_000
PUBLISHED_RUNS = (
    ("3DGS, 4 views, no Perp-Neg", 5_000, 43.0, 4, False, 0.1),
    ("NeRF, 1 view, Perp-Neg", 10_000, 119.0, 1, True, 0.25),
)
"""What, steps, minutes on an A6000 (SDI paper, tables 1 and 2), views, Perp-Neg, t_min."""

FIELDS = (
    ("preset", NgpConfig(), (0, 2**16, 2**14)),
    ("published", PUBLISHED, (0, 2**16, 2**14)),
)
"""Name, field, rays at once (0: all)."""

LEVERS: dict[str, dict[str, Any]] = {
    "attention_plain": {"attention": "plain"},
    "channels_last": {"channels_last": True},
    "cache_cross_attention": {"cache_cross_attention": True},
    "fused_adam": {"fused_adam": True},
    "views_at_once_1": {"views_at_once": 1},
    "branches_at_once_1": {"branches_at_once": 1},
    "vae_checkpoint": {"vae": "checkpoint"},
    "free_text_encoder": {"free_text_encoder": True},
    "all_at_once": {"views_at_once": 0},
    "inversion_order_2": {"inversion_order": 2, "inversion_steps": 5},
    "compile_unet": {"compile_unet": True},
}
"""Changes of the guidance or of how it is computed. The second-order inversion takes half of the steps, for which it
is as accurate (``docs/probe.md``)."""
UNCOUNTED = ("channels_last", "fused_adam", "compile_unet")
"""They ask for the same operations and tensors, as far as those are counted."""
BASE = {"views_at_once": 2}
"""Tier 40, beside which each lever is timed."""

VALIDATIONS = (
    *("toy-64", "toy-128", "toy-views-in-turn", "toy-checkpoint", "toy-field", "toy-field-rays", "toybox"),
    *("vae-128", "vae-256", "unet-256"),
)


def usual(**changes: Any) -> RunConfig:
    """The SD preset with a cloud that does not grow while it is counted."""
    config = preset_named("sd21-base").config
    gaussians = replace(config.gaussians, num_initial=USUAL_CLOUD)
    densify = replace(config.densify, enabled=False)
    return replace(config, gaussians=gaussians, densify=densify, prompt="anything", **changes)


def clouds(config: RunConfig, count: int) -> RunConfig:
    """The same with another number of Gaussians."""
    return replace(config, gaussians=replace(config.gaussians, num_initial=count))


def with_changes(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """The run with some settings of its guidance and of its computing replaced, each where it belongs."""
    own = {name: value for name, value in changes.items() if hasattr(config.compute, name)}
    rest = {name: value for name, value in changes.items() if name not in own}
    return replace(config, compute=replace(config.compute, **own), guidance=replace(config.guidance, **rest))


def cases() -> Iterator[tuple[str, int, RunConfig, dict[str, Any]]]:
    """Table, pixels, config and labels of every row; networks of 2.1-base and 2.1 are of one shape, so that a size
    stands for both.
    """
    for tier in TIERS:
        for size in (512, 768):
            yield "tiers", size, usual(compute=tier.compute), {"tier": tier.name}
    for name, steps, minutes, views, perp_neg, t_min in PUBLISHED_RUNS:
        config = usual(views_per_step=views, steps=steps)
        config = replace(config, guidance=replace(config.guidance, perp_neg=perp_neg, t_min=t_min))
        yield "published", 512, config, {"run": name, "steps": steps, "minutes": minutes}
    for size in SIZES:
        for views in VIEWS:
            for perp_neg in (False, True):
                config = usual(views_per_step=views)
                config = replace(config, guidance=replace(config.guidance, perp_neg=perp_neg))
                yield "steps", size, config, {"views": views, "perp_neg": perp_neg}
    for count in CLOUDS:
        for views in (1, 4):
            config = clouds(usual(views_per_step=views), count)
            yield "clouds", 512, config, {"views": views, "gaussians": count}
    yield from _field_cases()
    for name, changes in {"none": {}, **LEVERS}.items():
        if name not in UNCOUNTED:
            yield "levers", 512, with_changes(usual(), BASE | changes), {"lever": name}


def _field_cases() -> Iterator[tuple[str, int, RunConfig, dict[str, Any]]]:
    """Those of fields, one view at a time as in the published run: by rays at once alone, and by tier."""
    for name, ngp, groups in FIELDS:
        field: dict[str, Any] = {"representation": "ngp", "ngp": ngp, "views_per_step": 1}
        for rays in groups:
            config = usual(compute=ComputeConfig(rays_at_once=rays), **field)
            yield "fields", 512, config, {"field": name, "rays_at_once": rays}
        for tier in TIERS:
            yield "field_tiers", 512, usual(compute=tier.compute, **field), {"field": name, "tier": tier.name}


def tables(kept: Path | None, only: Callable[[str, int], bool]) -> dict[str, Any]:
    """Every row that is wanted, from the file of those counted before or anew."""
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept is not None and kept.exists() else []
    priors: dict[int, Any] = {}
    rows = []
    for table, size, config, labels in cases():
        key = {"table": table, "size": size, **labels}
        row = next((row for row in known if all(row.get(name) == value for name, value in key.items())), None)
        if row is None:
            if not only(table, size):
                continue
            if size not in priors:
                dtype = card_precision(config.compute.precision)
                priors[size] = published_prior("sd21-base", image_size=size, dtype=dtype)
            row = {**key, **from_count(count_step(config, priors[size]), config).as_json()}
            print(f"{key}: {row['peak_bytes'] / GIB:.2f} GiB", flush=True)
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
        rows.append(row)
    return {"rows": rows}


def markdown(report: dict[str, Any]) -> dict[str, str]:
    """Tables by the name of their marker, those of which every row was counted."""
    wanted = Counter(table for table, *_ in cases())
    counted = Counter(row["table"] for row in report["rows"])
    whole = {name: write(report) for name, write in _WRITERS.items() if counted[name] == wanted[name]}
    return {**whole, "assumptions": _assumptions()}


def _steps(report: dict[str, Any]) -> str:
    return _table(
        ("pixels", "views", "Perp-Neg", "weights", "VAE", "U-Net", "scene", "tensors", "card", *_card_names()),
        [
            (
                row["size"],
                row["views"],
                "on" if row["perp_neg"] else "off",
                *_parts(row),
                _gib(row["tensor_bytes"]),
                _gib(row["peak_bytes"]),
                *_seconds(row),
            )
            for row in _rows(report, "steps")
        ],
    )


def _clouds(report: dict[str, Any]) -> str:
    return _table(
        ("Gaussians", "views", "scene", "optimisers", "card"),
        [
            (
                f"{row['gaussians']:,}",
                row["views"],
                _gib(row["parts"].get("scene", 0)),
                _gib(row["parts"].get("optimiser", 0)),
                _gib(row["peak_bytes"]),
            )
            for row in _rows(report, "clouds")
        ],
    )


def _fields(report: dict[str, Any]) -> str:
    return _table(
        ("field", "rays at once", "scene", "card", *_card_names()),
        [
            (
                row["field"],
                f"{row['rays_at_once']:,}" if row["rays_at_once"] else "all, 262,144",
                _gib(row["parts"].get("scene", 0)),
                _gib(row["peak_bytes"]),
                *_seconds(row),
            )
            for row in _rows(report, "fields")
        ],
    )


def _field_tiers(report: dict[str, Any]) -> str:
    return _table(
        (
            "tier",
            "rays at once",
            *(f"{name} field" for name, *_ in FIELDS),
            *(f"preset field, {c}" for c in _card_names()),
        ),
        [
            (
                tier.name,
                f"{tier.compute.rays_at_once:,}",
                *(_gib(row["peak_bytes"]) for row in _of_tier(report, tier.name, "field_tiers")),
                *_seconds(_of_tier(report, tier.name, "field_tiers")[0]),
            )
            for tier in TIERS
        ],
    )


def _levers(report: dict[str, Any]) -> str:
    return _table(
        ("lever", "tensors", "card", *_card_names()),
        [
            (row["lever"].replace("_", " "), _gib(row["tensor_bytes"]), _gib(row["peak_bytes"]), *_seconds(row))
            for row in _rows(report, "levers")
        ],
    )


def _tiers(report: dict[str, Any]) -> str:
    return _table(
        ("tier", "how", "made for", "512 pixels", "768 pixels", *(f"{name}, 512" for name in _card_names())),
        [
            (
                tier.name,
                tier.summary,
                _gib(tier.budget_bytes),
                *(_gib(row["peak_bytes"]) for row in _of_tier(report, tier.name)),
                *_seconds(_of_tier(report, tier.name)[0]),
            )
            for tier in TIERS
        ],
    )


def _published(report: dict[str, Any]) -> str:
    return _table(
        ("run", "steps", "published", "predicted, networks alone"),
        [
            (
                row["run"],
                f"{row['steps']:,}",
                f"{row['minutes']:.0f} min, {60 * row['minutes'] / row['steps']:.2f} s per step",
                f"{row['seconds']['A6000'] * row['steps'] / 60:.0f} min, {row['seconds']['A6000']:.2f} s per step",
            )
            for row in _rows(report, "published")
        ],
    )


_WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "steps": _steps,
    "clouds": _clouds,
    "fields": _fields,
    "field_tiers": _field_tiers,
    "levers": _levers,
    "tiers": _tiers,
    "published": _published,
}


def _assumptions() -> str:
    cards = _table(
        ("card", "float16", "TF32", "memory", "share of the tensor peak"),
        [
            (
                card.name,
                f"{card.half_tflops:g} TFLOPS",
                f"{card.tf32_tflops:g} TFLOPS",
                f"{card.bandwidth_gbs:g} GB/s",
                f"{100 * card.tensor_share:.0f} %",
            )
            for card in CARDS
        ],
    )
    return (
        f"{cards}\n\nMemory is taken to reach {100 * BANDWIDTH_SHARE:.0f} % of its peak; the host asks for an "
        f"operation in {1e6 * HOST_SECONDS:.0f} microseconds; CUDA's context and the libraries' kernels take "
        f"{CONTEXT_BYTES / MIB:.0f} MiB."
    )


def validation_table(rows: list[dict[str, Any]]) -> str:
    """Measured beside counted."""
    return _table(
        ("case", "measured", "counted", "error"),
        [
            (
                row["case"],
                f"{row['measured'] / MIB:,.0f} MiB",
                f"{row['counted'] / MIB:,.0f} MiB",
                f"{100 * (row['counted'] / row['measured'] - 1):+.1f} %",
            )
            for row in rows
        ],
    )


def measured_table(report: dict[str, Any], measured: dict[str, Any]) -> str:
    """What ``steps_on_card.py`` recorded beside the same rows counted."""
    labels = ("table", "size", "tier", "run", "views", "perp_neg", "gaussians", "field", "rays_at_once")
    rows = []
    for found in measured["rows"]:
        key = {name: found[name] for name in labels if name in found}
        (row,) = (row for row in report["rows"] if all(row.get(name) == value for name, value in key.items()))
        what = {
            "tiers": f"tier {found.get('tier')}",
            # Its memory and time are those of the guidance; what is drawn are Gaussians.
            "published": f"guidance of {found.get('run')}",
            "clouds": "a million Gaussians",
            "fields": f"field, 1 view, {found.get('rays_at_once', 0):,} rays at once",
        }
        error = 100 * (row["tensor_bytes"] / found["tensor_bytes"] - 1)
        rows.append(
            (
                what.get(found["table"], "no tier"),
                found["size"],
                *(_gib(size) for size in (found["tensor_bytes"], row["tensor_bytes"])),
                f"{error:+.1f} %",
                *(_gib(size) for size in (found["card_bytes"], row["peak_bytes"])),
                f"{found['seconds']:.2f} s",
                f"{row['seconds']['H100']:.2f} s",
            )
        )
    heads = (
        "how",
        "pixels",
        "tensors, measured",
        "counted",
        "error",
        "card, measured",
        "predicted",
        "a step, measured",
    )
    return _table((*heads, "predicted"), rows)


def write_docs(path: Path, sections: dict[str, str]) -> None:
    """Put tables between the markers that bear their names."""
    text = path.read_text(encoding="utf-8")
    for name, table in sections.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        text, found = marked.subn(lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text)
        if not found:
            raise SystemExit(f"{path} has no markers of the table {name}")
    path.write_text(text, encoding="utf-8")


def write_package_data(report: dict[str, Any]) -> None:
    """What ``sdi-gs doctor`` tells of each tier, in the package."""
    rows = {
        ":".join((row["tier"], str(row["size"]), *([row["field"]] if "field" in row else []))): {
            name: row[name] for name in ("peak_bytes", "seconds")
        }
        for row in (*_rows(report, "tiers"), *_rows(report, "field_tiers"))
    }
    PACKAGE_DATA.write_text(f"{json.dumps(rows, indent=1)}\n", encoding="utf-8")


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _rows(report: dict[str, Any], table: str) -> list[dict[str, Any]]:
    return [row for row in report["rows"] if row["table"] == table]


def _of_tier(report: dict[str, Any], name: str, table: str = "tiers") -> list[dict[str, Any]]:
    return [row for row in _rows(report, table) if row["tier"] == name]


def _card_names() -> tuple[str, ...]:
    return tuple(card.name for card in CARDS)


def _seconds(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{row['seconds'][name]:.2f} s" for name in _card_names())


def _parts(row: dict[str, Any]) -> tuple[str, ...]:
    parts = row["parts"]
    sums = (
        parts.get("weights", 0) + parts.get("text", 0),
        parts.get("vae", 0),
        parts.get("unet", 0),
        parts.get("scene", 0) + parts.get("optimiser", 0) + parts.get("workspace", 0),
    )
    return tuple(map(_gib, sums))


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size < 100 * GIB else f"{size / GIB:.0f} GiB"


def validate(cases: list[str]) -> list[dict[str, Any]]:
    """Each case in a process whose large blocks go back to the system as soon as they are freed."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    script = Path(__file__).with_name("memory_validation.py")
    rows = []
    for case in cases:
        done = subprocess.run(
            [sys.executable, str(script), case], env=environment, check=True, capture_output=True, text=True
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
        if wanted is None and options.docs is not None:
            write_package_data(report)
    if options.docs is not None:
        write_docs(options.docs, sections)
    print("\n\n".join(sections.values()))
    print(json.dumps(report))


if __name__ == "__main__":
    main()

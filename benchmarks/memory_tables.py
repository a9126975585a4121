"""The tables of ``docs/reports/gpu-memory.md``, written from the rows that ``memory_prediction.py`` counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import tools_on_path  # noqa: F401
from memory_cases import FIELDS, cases
from memory_counting.cards import BANDWIDTH_SHARE, CARDS, HOST_SECONDS
from memory_counting.prediction import CONTEXT_BYTES

from sdi_gs.settings.tiers import TIERS

GIB, MIB = 2**30, 2**20
STEPS_PER_TARGET = (4, 6)


def markdown(report: dict[str, Any]) -> dict[str, str]:
    """Format the tables whose rows were all counted, by the names of their markers."""
    wanted = Counter(table for table, *_ in cases())
    counted = Counter(row["table"] for row in report["rows"])
    whole = {
        name: write(report)
        for name, write in _WRITERS.items()
        if counted[table := name.removesuffix("_seconds")] == wanted[table]
    }
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
                gib(row["tensor_bytes"]),
                gib(row["peak_bytes"]),
                *_seconds(row),
            )
            for row in rows_of(report, "steps")
        ],
    )


def _clouds(report: dict[str, Any]) -> str:
    return _table(
        ("Gaussians", "views", "scene", "optimisers", "card"),
        [
            (
                f"{row['gaussians']:,}",
                row["views"],
                gib(row["parts"].get("scene", 0)),
                gib(row["parts"].get("optimiser", 0)),
                gib(row["peak_bytes"]),
            )
            for row in rows_of(report, "clouds")
        ],
    )


def _fields(report: dict[str, Any]) -> str:
    return _table(
        ("field", "rays at once", "scene", "card", *_card_names()),
        [
            (
                row["field"],
                f"{row['rays_at_once']:,}" if row["rays_at_once"] else "all, 262,144",
                gib(row["parts"].get("scene", 0)),
                gib(row["peak_bytes"]),
                *_seconds(row),
            )
            for row in rows_of(report, "fields")
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
                *(gib(row["peak_bytes"]) for row in _of_tier(report, tier.name, "field_tiers")),
                *_seconds(_of_tier(report, tier.name, "field_tiers")[0]),
            )
            for tier in TIERS
        ],
    )


def _levers(report: dict[str, Any]) -> str:
    return _table(
        ("lever", "tensors", "card", *_card_names()),
        [
            (row["lever"].replace("_", " "), gib(row["tensor_bytes"]), gib(row["peak_bytes"]), *_seconds(row))
            for row in rows_of(report, "levers")
        ],
    )


def _tiers(report: dict[str, Any]) -> str:
    return _table(
        ("tier", "how", "made for", "512 pixels", "768 pixels", *(f"{name}, 512" for name in _card_names())),
        [
            (
                tier.name,
                tier.summary,
                gib(tier.budget_bytes),
                *(gib(row["peak_bytes"]) for row in _of_tier(report, tier.name)),
                *_seconds(_of_tier(report, tier.name)[0]),
            )
            for tier in TIERS
        ],
    )


def _four_views(report: dict[str, Any]) -> str:
    both = [{row["scene"]: row for row in _of_tier(report, tier.name, "four_views")} for tier in TIERS]
    return _table(
        ("tier", "200 000 Gaussians", "published field", *(f"Gaussians, {name}" for name in _card_names())),
        [
            (
                tier.name,
                gib(rows["gaussians"]["peak_bytes"]),
                gib(rows["field"]["peak_bytes"]),
                *_seconds(rows["gaussians"]),
            )
            for tier, rows in zip(TIERS, both, strict=True)
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
            for row in rows_of(report, "published")
        ],
    )


def _replay(report: dict[str, Any]) -> str:
    return _table(
        (
            "tier",
            "size",
            *("card, loss in latents", "in pixels"),
            *("tensors, loss in latents", "in pixels"),
            "further step in pixels",
        ),
        [
            (
                tier.name,
                size,
                *(gib(row["peak_bytes"]) for row in (latents, pixels)),
                *(gib(row["tensor_bytes"]) for row in (latents, pixels)),
                gib(pixels["replayed_tensor_bytes"]),
            )
            for tier in TIERS
            for size, latents, pixels in _both_spaces(report, tier.name)
        ],
    )


def _replay_seconds(report: dict[str, Any]) -> str:
    """Write the largest tier's seconds of a round's first step and of a further one, and the mean by their number."""
    rows = []
    for size, *both in _both_spaces(report, TIERS[0].name):
        for row in both:
            for card, first in row["seconds"].items():
                later = row["replayed_seconds"][card]
                means = (f"{(first + (count - 1) * later) / count:.3f} s" for count in STEPS_PER_TARGET)
                rows.append((size, row["space"], card, f"{first:.3f} s", f"{later:.3f} s", *means))
    means = (f"a step, {count} per target" for count in STEPS_PER_TARGET)
    return _table(("size", "loss in", "card", "first step of a round", "a further step", *means), rows)


def _both_spaces(report: dict[str, Any], tier: str) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Yield pixels of a side and the rows in latents and in pixels."""
    rows = {(row["size"], row["space"]): row for row in _of_tier(report, tier, "replay")}
    for size in sorted({size for size, _ in rows}):
        yield size, rows[size, "latents"], rows[size, "pixels"]


_WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "steps": _steps,
    "clouds": _clouds,
    "fields": _fields,
    "field_tiers": _field_tiers,
    "levers": _levers,
    "tiers": _tiers,
    "four_views": _four_views,
    "replay": _replay,
    "replay_seconds": _replay_seconds,
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
    """Format measured beside counted memory."""
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
    """Format the record of ``steps_on_card.py`` beside the counted rows."""
    labels = ("table", "size", "tier", "run", "views", "perp_neg", "gaussians", "field", "rays_at_once")
    rows = []
    for found in measured["rows"]:
        key = {name: found[name] for name in labels if name in found}
        (row,) = (row for row in report["rows"] if all(row.get(name) == value for name, value in key.items()))
        what = {
            "measured_tiers": f"tier {found.get('tier')} of 0.1",
            # The guidance of the published run, here with Gaussians.
            "published": f"guidance of {found.get('run')}",
            "clouds": "a million Gaussians",
            "fields": f"field, 1 view, {found.get('rays_at_once', 0):,} rays at once",
        }
        error = 100 * (row["tensor_bytes"] / found["tensor_bytes"] - 1)
        rows.append(
            (
                what.get(found["table"], "no tier"),
                found["size"],
                *(gib(size) for size in (found["tensor_bytes"], row["tensor_bytes"])),
                f"{error:+.1f} %",
                *(gib(size) for size in (found["card_bytes"], row["peak_bytes"])),
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


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def rows_of(report: dict[str, Any], table: str) -> list[dict[str, Any]]:
    """Return the counted rows of one table."""
    return [row for row in report["rows"] if row["table"] == table]


def _of_tier(report: dict[str, Any], name: str, table: str = "tiers") -> list[dict[str, Any]]:
    return [row for row in rows_of(report, table) if row["tier"] == name]


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
        sum(parts.get(name, 0) for name in ("scene", "guidance", "optimiser", "workspace")),
    )
    return tuple(map(gib, sums))


def gib(size: int) -> str:
    """Format bytes in GiB, with decimals for small values."""
    return f"{size / GIB:.2f} GiB" if size < 100 * GIB else f"{size / GIB:.0f} GiB"

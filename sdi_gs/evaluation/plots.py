"""Figures of measured numbers; matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from sdi_gs.errors import UserError
from sdi_gs.files import replacement_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, its size in inches; UserError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError('figures need matplotlib: pip install "sdi-gs[eval]"') from error
    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def save_figure(figure: Figure, path: Path, *, overwrite: bool = False) -> None:
    """Write a PNG or SVG file, by the ending; UserError where ``path`` exists (unless ``overwrite``), for a full disk.

    Equal figures give equal files.
    """
    import matplotlib

    # Texts as texts, names that do not change from call to call, and no date.
    fixed = matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sdi-gs"})
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with replacement_for(path, overwrite=overwrite) as aside, fixed:
        figure.savefig(aside, format=path.suffix.removeprefix("."), metadata=metadata)


def draw_curves(
    axes: Axes, x: Sequence[float], curves: Mapping[str, Sequence[float]], *, title: str, xlabel: str, ylabel: str
) -> None:
    """Draw curves over a common x on a logarithmic y axis."""
    for (label, values), marker in zip(curves.items(), "osd^vP*X", strict=False):
        axes.plot(x, values, marker=marker if len(x) < 12 else "", markersize=5, label=label)
    axes.set_yscale("log")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)


def save_probe_figure(
    report: dict[str, Any],
    path: Path,
    *,
    pictures: Tensor,  # [B, H, W, 3] in [0, 1], the probed latents, decoded
) -> None:
    """Draw the six panels of a probe's report (``sdi_gs.evaluation.probe``) and write them as a PNG file."""
    figure = new_figure(13.0, 7.5)
    panels = figure.subplots(2, 3).flatten()
    timesteps, residual = report["timesteps"], "mean (z - target)²"
    for panel, key, label, title in (
        (panels[0], "residual_by_source", "{}", "residual of eq. 8 by noise source"),
        (panels[1], "residual_by_inversion_scale", "γ_inv = {}", "... by γ_inv"),
        (panels[2], "residual_by_inversion_steps", "n = {}", "... by inversion steps"),
    ):
        curves = {label.format(value): values for value, values in report[key].items()}
        draw_curves(panel, timesteps, curves, title=title, xlabel="t", ylabel=residual)
    names = {"inversion": "SDI (inversion)", "random": "SDS (random)"}
    draw_curves(
        panels[3],
        timesteps,
        {names[source]: values for source, values in report["target_variance"].items()},
        title="variance of the target at a fixed latent",
        xlabel="t",
        ylabel="variance over draws",
    )
    changes = {names[source]: values for source, values in report["target_change"].items()}
    draw_curves(
        panels[4],
        range(1, 1 + len(report["target_change"]["inversion"])),
        changes,
        title="change of the target along a trajectory",
        xlabel="step (t falls)",
        ylabel="mean squared change",
    )
    strip = pictures[:4].permute(1, 0, 2, 3).flatten(1, 2)
    panels[5].imshow(strip.numpy())
    panels[5].set(title="the latents, decoded", xticks=[], yticks=[])
    figure.suptitle(f'{report["prior"]}, "{report["prompt"]}", γ_fwd = {report["guidance_scale"]:g}')
    save_figure(figure, path)

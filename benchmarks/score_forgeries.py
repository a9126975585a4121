"""Scores of images that look right in one way and are wrong in another: what each score sees (docs/eval.md).

    python benchmarks/score_forgeries.py --docs docs      # two minutes of CPU; tables and pictures
    python benchmarks/score_forgeries.py --members 3      # members of every class that are not among the draws

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scored_runs import CPU, insert_table
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.configs.presets import preset_named
from sdi_gs.contracts import RenderOutput
from sdi_gs.evaluation.metrics.metric import IMAGE_SIZE
from sdi_gs.pictures.views import render_views
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import CLASSES, ClassName
from sdi_gs.toybox.objects import PlacedObject, canonical_object, sample_object
from sdi_gs.toybox.patches import draw_shades, render_patches
from sdi_gs.toybox.splits import split_seed
from sdi_gs.toybox.styles import STYLES
from sdi_gs.toybox.truth import NUM_DRAWS, held_out_cameras, render_truth, truth_draws
from sdi_gs.toybox.truth_renders import TruthRenders
from sdi_gs.toybox.truth_score import TruthScore, score_against_truth
from sdi_gs.toybox.truth_yaw import turned
from sdi_gs.training.fitting import fit_to_images

CAMERAS = held_out_cameras(IMAGE_SIZE)
COLUMNS = ("psnr_best", "iou_best", "detail", "detail_inside", "sharpness_ratio")
PATCH_COLUMNS = ("psnr_best", "iou_best", "detail", "detail_inside", "patch_changes")
MARKS = ("<!-- forgeries: benchmarks/score_forgeries.py -->", "<!-- end of forgeries -->")
PATCH_MARKS = ("<!-- patches: benchmarks/score_forgeries.py -->", "<!-- end of patches -->")
FIT_STEPS = (75, 150, 600, 1200)
SHOWN_VIEWS = (0, 9)
LOOK_ALIKES: tuple[tuple[ClassName, ClassName], ...] = (
    ("house", "robot"),
    ("table", "chair"),
    ("house", "car"),
    ("cube", "ball"),
    ("cylinder", "mug"),
    ("mushroom", "lamp"),
    ("cone", "tree"),
    ("robot", "snowman"),
    ("robot", "rocket"),
    ("chair", "table"),
)
"""What is shown, and what it is scored as."""


@dataclass(frozen=True, kw_only=True)
class Forgery:
    """Images that are scored as an object."""

    name: str
    rgb: Tensor  # [V, H, W, 3] over white
    alpha: Tensor  # [V, H, W, 1]


def blurred(images: Tensor, sigma: float) -> Tensor:  # [V, H, W, C]
    """Blur images by a Gaussian of ``sigma`` pixels."""
    radius, channels = math.ceil(3.0 * sigma), images.shape[-1]
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(channels, 1, -1)
    planes = F.pad(images.movedim(-1, 1), (radius,) * 4, mode="replicate")
    planes = F.conv2d(planes, kernel[:, :, None, :], groups=channels)
    return F.conv2d(planes, kernel[:, :, :, None], groups=channels).movedim(1, -1)


def noisy(images: Tensor, amplitude: float) -> Tensor:
    """Add white noise."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + amplitude * noise).clamp(0.0, 1.0)


def shifted(pixels: float) -> CameraBatch:
    """Return the cameras with their pictures moved to the right."""
    intrinsics = CAMERAS.intrinsics.clone()
    intrinsics[:, 0, 2] += pixels
    return replace(CAMERAS, intrinsics=intrinsics)


def fitted(item: PlacedObject, steps: int) -> Gaussians:
    """Fit the Gaussians of the preset ``toybox`` to true views."""
    scene = fit_to_images(
        replace(preset_named("toybox").config, steps=steps),
        lambda cameras, background: render_truth([item], cameras, background).rgb,
        image_size=IMAGE_SIZE,
        device=CPU,
    )
    assert isinstance(scene.representation, Gaussians)
    return scene.representation


def with_needles(gaussians: Gaussians, count: int) -> Gaussians:
    """Draw some of the visible Gaussians out into opaque needles of random directions."""
    generator, made = torch.Generator().manual_seed(0), gaussians.detached_copy()
    with torch.no_grad():
        visible = torch.nonzero(made.params["opacities"] > 0.0)[:, 0]
        chosen = visible[torch.randperm(len(visible), generator=generator)[:count]]
        made.params["scales"][chosen] = torch.tensor([0.15, 0.006, 0.006]).log()
        made.params["quats"][chosen] = torch.randn(count, 4, generator=generator)
        made.params["opacities"][chosen] = 3.0
    return made


def forgeries(item: PlacedObject) -> list[Forgery]:
    """Return images of a plain object, and what may pass for it."""
    truth = render_truth([item], CAMERAS)
    rgb, alpha = truth.rgb, truth.alpha

    def seen(name: str, cameras: CameraBatch) -> Forgery:
        render = render_truth([item], cameras)
        return Forgery(name=name, rgb=render.rgb, alpha=render.alpha)

    def splats(name: str, gaussians: Gaussians) -> Forgery:
        render = render_views(gaussians, CAMERAS)
        return Forgery(name=name, rgb=render.rgb, alpha=render.alpha)

    fits = {steps: fitted(item, steps) for steps in FIT_STEPS}
    flat = 1.0 - alpha * (1.0 - rgb[alpha[..., 0] > 0.5].mean(dim=0))
    house = render_truth([canonical_object("house", item.colour)], CAMERAS)
    return [
        Forgery(name="truth", rgb=rgb, alpha=alpha),
        *(
            Forgery(name=f"blurred by {sigma} pixels", rgb=blurred(rgb, sigma), alpha=blurred(alpha, sigma))
            for sigma in (0.5, 0.7, 1.0, 2.0)
        ),
        *(Forgery(name=f"noise of {size} added", rgb=noisy(rgb, size), alpha=alpha) for size in (0.02, 0.05, 0.1, 0.2)),
        Forgery(name="blurred by 2 pixels, noise of 0.2", rgb=noisy(blurred(rgb, 2.0), 0.2), alpha=blurred(alpha, 2.0)),
        *(seen(f"shifted by {pixels} pixels", shifted(pixels)) for pixels in (0.25, 0.5, 1.0, 2.0)),
        *(seen(f"turned by {yaw:g} degrees", turned(CAMERAS, -yaw)) for yaw in (1.0, 3.0, 6.0)),
        *(splats(f"fitted to true views, {steps} steps", fits[steps]) for steps in FIT_STEPS),
        *(splats(f"the same, 150 steps, {count} needles", with_needles(fits[150], count)) for count in (30, 100)),
        Forgery(name="silhouette in its mean colour", rgb=flat, alpha=alpha),
        Forgery(name="a house", rgb=house.rgb, alpha=house.alpha),
    ]


def patch_forgeries(item: PlacedObject) -> list[Forgery]:
    """Return images of a member of a styled object, and what may pass for it."""
    assert item.style is not None
    patches = render_patches([item] * len(CAMERAS), CAMERAS)
    alpha, average = patches.alpha, patches.mean()
    rng = np.random.default_rng(0)
    members = torch.stack([draw_shades(item.style, rng) for _ in range(len(CAMERAS))])
    member = patches.shaded(members[0])
    images = {
        "a member": member,
        "the member that is light all over": patches.shaded(torch.ones(STYLES[item.style].num_cells, dtype=torch.bool)),
        "the plain object, which has no seams": render_truth([replace(item, style=None)], CAMERAS).rgb,
        "the mean of all members": average,
        "another member in every view": patches.shaded(members),
        "a member at half its contrast": 0.5 * (member + average),
        **{f"a member blurred by {sigma} pixels": blurred(member, sigma) for sigma in (0.5, 1.0, 2.0)},
        "the mean, noise of 0.1 added": noisy(average, 0.1),
    }
    return [Forgery(name=name, rgb=rgb, alpha=alpha) for name, rgb in images.items()]


def table(rows: Sequence[tuple[str, TruthScore]], columns: Sequence[str]) -> str:
    """Format scores, a line per forgery."""
    lines = ["| images | " + " | ".join(f"`{column}`" for column in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, score in rows:
        values = score.as_json()
        cells = (f"{values[column]:.{1 if column.startswith('psnr') else 2}f}" for column in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def member_scores(count: int) -> dict[str, float]:
    """Score members of every class that are not among the draws, free of yaw."""
    renders, scores = TruthRenders(CAMERAS), []
    for name in CLASSES:
        for index in range(count):
            scores.append(_scored_free(sample_object(name, "blue", split_seed("val", index)), name, renders))
            print(f"{name} {index}: {json.dumps(scores[-1].as_json())}", flush=True)
    inside = [score.detail_inside for score in scores if score.detail_inside is not None]
    gains = [score.psnr_free - score.psnr_best for score in scores if score.psnr_free is not None]
    return {
        "psnr_best": mean(score.psnr_best for score in scores),
        "detail": mean(score.detail for score in scores),
        "detail_min": min(score.detail for score in scores),
        "detail_max": max(score.detail for score in scores),
        "detail_inside": mean(inside),
        "detail_inside_min": min(inside),
        "detail_inside_max": max(inside),
        "yaw_gain": mean(gains),
        "yaw_gain_max": max(gains),
    }


def stranger_scores() -> dict[str, float]:
    """Score canonical objects as members of another class."""
    renders, scores = TruthRenders(CAMERAS), []
    for name, wanted in LOOK_ALIKES:
        scores.append(_scored_free(canonical_object(name, "blue"), wanted, renders))
        print(f"{name} as {wanted}: {json.dumps(scores[-1].as_json())}", flush=True)
    gains = [score.psnr_free - score.psnr_best for score in scores if score.psnr_free is not None]
    details = sorted(score.detail for score in scores)
    return {
        "strangers_detail_max": details[-1],
        "strangers_detail_median": details[len(details) // 2],
        "strangers_yaw_gain": mean(gains),
        "strangers_yaw_gain_max": max(gains),
    }


def _scored_free(item: PlacedObject, wanted: ClassName, renders: TruthRenders) -> TruthScore:
    def render(cameras: CameraBatch) -> RenderOutput:
        made = render_truth([item], cameras)
        return RenderOutput(rgb=made.rgb, alpha=made.alpha)

    views, prompt = render(CAMERAS), ToyboxPrompt(class_name=wanted, colour=item.colour)
    return score_against_truth(views.rgb, views.alpha, CAMERAS, prompt, NUM_DRAWS, 0, render=render, renders=renders)


def scored(forged: Sequence[Forgery], prompt: ToyboxPrompt) -> list[tuple[str, TruthScore]]:
    """Score images as they are."""
    renders = TruthRenders(CAMERAS)
    return [
        (each.name, score_against_truth(each.rgb, each.alpha, CAMERAS, prompt, NUM_DRAWS, 0, renders=renders))
        for each in forged
    ]


def save_sheet(forged: Sequence[Forgery], rows: Sequence[tuple[str, TruthScore]], path: Path) -> None:
    """Save two views of each with its detail and its sharpness."""
    from PIL import Image, ImageDraw

    side, columns, head = 2 * IMAGE_SIZE, 4, 30
    width, height = len(SHOWN_VIEWS) * side, side + head
    page = Image.new("RGB", (columns * width, -(-len(forged) // columns) * height), "white")
    draw = ImageDraw.Draw(page)
    for index, (each, (name, score)) in enumerate(zip(forged, rows, strict=True)):
        left, top = index % columns * width, index // columns * height
        draw.text((left + 4, top + 2), name, fill="black")
        draw.text(
            (left + 4, top + 15), f"detail {score.detail:.2f}, sharpness {score.sharpness_ratio:.2f}", fill="black"
        )
        for k, view in enumerate(SHOWN_VIEWS):
            pixels = (255.0 * each.rgb[view].clamp(0.0, 1.0)).round().byte().numpy()
            page.paste(
                Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (left + k * side, top + head)
            )
    page.save(path)


def main() -> None:
    """Parse the arguments, score, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--docs", type=Path, help="folder of eval.md, for the tables and the pictures")
    parser.add_argument("--members", type=int, default=0, help="members of every class to score instead")
    options = parser.parse_args()
    if options.members:
        print(json.dumps(member_scores(options.members) | stranger_scores()))
        return
    forged = forgeries(truth_draws("robot", "blue", 1)[0])
    plain = scored(forged, ToyboxPrompt(class_name="robot", colour="blue"))
    robot = canonical_object("robot", "blue", "patchwork")
    patched = scored(patch_forgeries(robot), ToyboxPrompt(class_name="robot", colour="blue", style="patchwork"))
    tables = table(plain, COLUMNS), table(patched, PATCH_COLUMNS)
    print("\n".join(tables))
    if options.docs is not None:
        insert_table(options.docs / "eval.md", tables[0], MARKS)
        insert_table(options.docs / "eval.md", tables[1], PATCH_MARKS)
        save_sheet(forged, plain, options.docs / "eval-forgeries.png")
    found: dict[str, Any] = {name: score.as_json() for name, score in plain + patched}
    print(json.dumps(found))


if __name__ == "__main__":
    main()

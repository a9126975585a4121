"""Accuracy of the judge on Gaussians fitted to true views: its ceiling for generated objects.

``python benchmarks/judge_on_splats.py [COUNT]``; the last line is one JSON object. Each object of random colour and
proportions is fitted with the settings of the preset ``toybox-ideal`` and judged on the 24 held-out views.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from sdi_gs.configs.presets import preset_named
from sdi_gs.pictures.views import render_views
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES
from sdi_gs.toybox.judge import load_judge
from sdi_gs.toybox.objects import sample_object
from sdi_gs.toybox.renderer import render_scenes
from sdi_gs.toybox.splits import split_seed
from sdi_gs.toybox.truth import held_out_cameras, render_truth
from sdi_gs.training.fitting import fit_to_images


def main() -> None:
    """Fit and judge; one line per object, then the means."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else len(CLASSES)
    rng, judge, cameras = split_seed("val", 30), load_judge(), held_out_cameras(64)
    config, words = preset_named("toybox-ideal").config, held_out_cameras(64).view_words()
    rows: dict[str, list[dict[str, Any]]] = {"splats": [], "truth": []}
    for index in range(count):
        name = CLASSES[index % len(CLASSES)]
        item = sample_object(name, COLOUR_NAMES[int(rng.integers(len(COLOUR_NAMES)))], rng)
        fitted = fit_to_images(
            config,
            lambda views, background, item=item: render_scenes([(item,)] * len(views), views, background).rgb,
            image_size=64,
            device=torch.device("cpu"),
        )
        asked = ToyboxPrompt(class_name=name, colour=item.colour)
        for what, images in (
            ("splats", render_views(fitted.representation, cameras).rgb),
            ("truth", render_truth([item], cameras).rgb),
        ):
            rows[what].append(judge.score(images, words, asked).as_json())
        print(f"a {item.colour} {name}: splats {rows['splats'][-1]}, truth {rows['truth'][-1]}", flush=True)
    print(json.dumps({what: means(scores) for what, scores in rows.items()} | {"objects": count}))


def means(scores: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mean of each score over the objects that have it."""
    found = {key: [score[key] for score in scores if score[key] is not None] for key in scores[0]}
    return {key: sum(values) / len(values) for key, values in found.items() if values}


if __name__ == "__main__":
    main()

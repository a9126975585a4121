"""Random pictures and their captions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toybox_training.examples import CaptionsConfig, ExamplesConfig, draw_examples, write_caption

from sdi_gs.cameras import VIEW_WORDS
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BACKGROUND_NAMES
from sdi_gs.toybox.captions import ToyboxPrompt, parse_prompt
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES
from sdi_gs.toybox.objects import HELD_OUT_PAIRS
from sdi_gs.toybox.splits import split_seed

DEFAULT = ExamplesConfig()


def test_no_held_out_pair_is_drawn_for_a_prior_and_all_are_for_a_judge() -> None:
    def pairs(config: ExamplesConfig) -> set[tuple[str, str]]:
        drawn = draw_examples(config, 4000, split_seed("val", 50))
        return {(item.class_name, item.colour) for scene in drawn.scenes for item in scene}

    assert not pairs(DEFAULT) & HELD_OUT_PAIRS
    assert not pairs(replace(DEFAULT, wild_share=1.0)) & HELD_OUT_PAIRS
    assert HELD_OUT_PAIRS < pairs(replace(DEFAULT, held_out_pairs=True))


def test_the_labels_are_those_of_what_is_rendered() -> None:
    drawn = draw_examples(DEFAULT, 200, split_seed("val", 51))
    words = drawn.cameras.view_words()
    for index, (item,) in enumerate(drawn.scenes):
        assert CLASSES[drawn.classes[index]] == item.class_name
        assert COLOUR_NAMES[drawn.colours[index]] == item.colour
        assert VIEW_WORDS[drawn.views[index]] == words[index]
        name = BACKGROUND_NAMES[drawn.backgrounds[index]]
        assert drawn.background_rgb[index].tolist() == list(BACKGROUND_COLOURS[name])


def test_no_object_stands_on_its_own_colour_unless_asked_for() -> None:
    def own(config: ExamplesConfig) -> int:
        drawn = draw_examples(config, 1000, split_seed("val", 52))
        colours = [COLOUR_NAMES[index] for index in drawn.colours]
        grounds = [BACKGROUND_NAMES[index] for index in drawn.backgrounds]
        return sum(colour == ground for colour, ground in zip(colours, grounds, strict=True))

    assert own(DEFAULT) == 0
    assert own(replace(DEFAULT, own_colour_background=True)) > 20


def test_shares_are_kept() -> None:
    drawn = draw_examples(DEFAULT, 4000, split_seed("val", 53))
    above = drawn.cameras.elevation_deg > 60.0
    assert above.float().mean().item() == pytest.approx(DEFAULT.overhead_share, abs=0.015)
    low, high = DEFAULT.elevation_deg
    assert ((drawn.cameras.elevation_deg[~above] >= low) & (drawn.cameras.elevation_deg[~above] <= high)).all()
    # White and black objects have one background less to choose from.
    free = torch.tensor([COLOUR_NAMES[index] not in BACKGROUND_NAMES for index in drawn.colours])
    white = (drawn.backgrounds[free] == BACKGROUND_NAMES.index("white")).float().mean().item()
    assert white == pytest.approx(DEFAULT.white_share, abs=0.04)
    robots, balls = ((drawn.classes == CLASSES.index(name)).sum().item() for name in ("robot", "ball"))
    assert robots / balls == pytest.approx(DEFAULT.front_weight / DEFAULT.simple_weight, rel=0.35)


def test_pictures_show_the_background_where_nothing_covers_it() -> None:
    drawn = draw_examples(DEFAULT, 12, split_seed("val", 54))
    images, alpha = drawn.render()
    assert images.shape == (12, 3, 64, 64)
    assert alpha.shape == (12, 1, 64, 64)
    empty = (alpha == 0.0).expand_as(images)
    expected = drawn.background_rgb[:, :, None, None].expand_as(images)
    assert torch.equal(images[empty], expected[empty])
    assert alpha.amax(dim=(1, 2, 3)).min() > 0.9


def test_captions_are_understood_as_what_they_say() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(600):
        row = [int(rng.integers(n)) for n in (len(CLASSES), len(COLOUR_NAMES), len(VIEW_WORDS), len(BACKGROUND_NAMES))]
        config = CaptionsConfig(view_share=0.7, background_share=0.7, colour_share=0.7)
        text, (colour, view, background) = write_caption(config, row, rng)
        seen.add((colour, view, background))
        assert parse_prompt(text) == ToyboxPrompt(
            class_name=CLASSES[row[0]],
            colour=COLOUR_NAMES[row[1]] if colour else None,
            view=VIEW_WORDS[row[2]] if view else None,
            background=BACKGROUND_NAMES[row[3]] if background else None,
        )
    assert len(seen) == 8


def test_nearly_every_caption_names_the_view() -> None:
    assert CaptionsConfig().view_share >= 0.95


@pytest.mark.parametrize("name", ["overhead_share", "white_share", "wild_share"])
def test_shares_beyond_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        replace(DEFAULT, **{name: 1.5})

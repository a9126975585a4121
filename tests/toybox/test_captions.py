"""Sentences there and back, and one line for every sentence that toybox cannot take."""

from __future__ import annotations

import itertools

import pytest

from sdi_gs.cameras import VIEW_WORDS, ViewWord
from sdi_gs.errors import UserError
from sdi_gs.settings.backgrounds import BACKGROUND_NAMES, BackgroundName
from sdi_gs.toybox.captions import (
    PART_OF,
    VOCABULARY,
    ToyboxPrompt,
    describe,
    parse_plain_request,
    parse_prompt,
    style_in,
)
from sdi_gs.toybox.classes import CLASSES, COLOURS, ClassName
from sdi_gs.toybox.styles import STYLE_NAMES, StyleName


@pytest.mark.parametrize("class_name", CLASSES)
def test_descriptions_are_read_back_as_what_they_say(class_name: ClassName) -> None:
    prefixes = ("", "a photo of ", "a 3d render of ", "a DSLR photo of ")
    for colour, view, prefix in itertools.product(COLOURS, (*VIEW_WORDS, None), prefixes):
        text = prefix + describe(class_name, colour) + (f", {view}" if view is not None else "")
        assert parse_prompt(text) == ToyboxPrompt(class_name=class_name, colour=colour, view=view)


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_styles_are_read_back_and_stay_out_of_the_networks_words(style: StyleName) -> None:
    for class_name, colour in itertools.product(CLASSES, COLOURS):
        text = describe(class_name, colour, style)
        assert parse_prompt(text) == ToyboxPrompt(class_name=class_name, colour=colour, style=style)
        assert style_in(text) == style_in(f"{text} and a dragon") == style
        assert style_in(describe(class_name, colour)) is None
    assert style not in VOCABULARY
    with pytest.raises(UserError, match=f"a {style} object.*--prior toybox-ideal"):
        parse_plain_request(f"a {style} blue robot")
    assert parse_plain_request("a blue robot") == parse_prompt("a blue robot")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a blue robot", ("robot", "blue", None)),
        ("A  Red BALL.", ("ball", "red", None)),
        ("a photo of an orange cube, front view", ("cube", "orange", "front view")),
        ("a DSLR photo of a pink mug, back view", ("mug", "pink", "back view")),
        ("a 3D render of a table", ("table", None, None)),
        ("a 3d-render of the yellow car, side view", ("car", "yellow", "side view")),
        ("a snowman with a red hat", ("snowman", "red", None)),
        ("a house with a blue roof, overhead view", ("house", "blue", "overhead view")),
        ("a lamp with a green shade", ("lamp", "green", None)),
        ("rear view of a white rocket", ("rocket", "white", "back view")),
        ("a brown doughnut", ("donut", "brown", None)),
        ("a robot, blue", ("robot", "blue", None)),
        ("an object, side view", (None, None, "side view")),
    ],
)
def test_tolerant_reading(text: str, expected: tuple[ClassName | None, str | None, ViewWord | None]) -> None:
    prompt = parse_prompt(text)
    assert (prompt.class_name, prompt.colour, prompt.view) == expected


@pytest.mark.parametrize("text", ["", "   ", ",", "a photo of a"])
def test_text_that_says_nothing_is_unconditional(text: str) -> None:
    assert parse_prompt(text) == ToyboxPrompt()


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (
            "a red dragon",
            ('"dragon"', '"a red dragon"', "ball, cube", "red, orange", "patchwork, striped", "--prior sd21-base"),
        ),
        ("a grey ball", ('"grey"', "colours red, orange")),
        ("a red ball and a blue cube", ("ball, cube", "one object per prompt")),
        ("a striped patchwork ball", ("striped, patchwork", "more than one style")),
        ("a red red ball", ("red, red", "one colour")),
        ("a ball, front view, side view", ("front view, side view", "name one")),
        ("a robot with a red hat", ("only a snowman has one", "a snowman with a red hat")),
        ("a view of a ball", ('"view"',)),
        ("a ball on a purple background", ("purple", "white")),
        ("a ball, white background, black background", ("black, white", "one of", "leave it out of the prompt")),
    ],
)
def test_what_toybox_cannot_take_is_said_in_one_line(text: str, fragments: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        parse_prompt(text)
    message = str(error.value)
    assert "\n" not in message
    assert all(fragment in message for fragment in fragments), message


def test_every_word_of_the_vocabulary_is_understood() -> None:
    context = {"background": "white background", "view": "front view"}
    context |= {word: f"{word} view" for word in ("front", "side", "back", "overhead", "rear", "top")}
    context |= {word: f"{word} background" for word in ("grey", *BACKGROUND_NAMES)}
    context |= {part: f"a {owner} with a red {part}" for part, owner in PART_OF.items()}
    for word in VOCABULARY:
        parse_prompt(context.get(word, word))
    assert {*CLASSES, *COLOURS, *PART_OF, *BACKGROUND_NAMES, "a", "photo", "view"} <= set(VOCABULARY)


@pytest.mark.parametrize("name", BACKGROUND_NAMES)
def test_background_is_not_taken_for_the_colour(name: BackgroundName) -> None:
    expected = ToyboxPrompt(class_name="ball", colour="red", background=name)
    assert parse_prompt(f"a red ball, {name} background") == expected
    assert parse_prompt(f"a red ball on a {name.replace('gray', 'grey')} background") == expected

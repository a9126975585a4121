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
    SecondObject,
    ToyboxPrompt,
    describe,
    describe_pair,
    names_two_objects,
    parse_plain_request,
    parse_prompt,
    parse_single_request,
    style_in,
)
from sdi_gs.toybox.classes import CLASSES, COLOURS, ClassName
from sdi_gs.toybox.pairs import CARRIERS, RELATIONS, ObjectPair, RelationName
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
        ("a red ball under a blue cube", ('"under"', "on, next to, in front of, behind", "use one of these")),
        ("a ball on a cube next to a cone", ("on, next to", "two objects per prompt", "one relation")),
        ("a ball on a cube and a cone", ("cube, cone", "one object per prompt")),
        ("a ball on", ('no object after "on"', "a red ball on a blue cube")),
        ("on top of a cube", ('no object before "on top of"',)),
        ("a car on a ball", ("nothing can stand on a ball", "a cube, a cylinder or a table", "another relation")),
        ("a red blue ball on a cube", ("red, blue", "one colour per object")),
        ("a striped ball next to a cube", ("striped", "a prompt with one object")),
        ("a ball next to a cube with a hat", ("only a snowman has one",)),
        ("a red dragon on a blue cube", ('"dragon"', "it knows the objects")),
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


@pytest.mark.parametrize("relation", RELATIONS)
def test_descriptions_of_two_objects_are_read_back(relation: RelationName) -> None:
    colours = list(COLOURS)
    for k, first in enumerate(CLASSES):
        for second in CARRIERS if relation == "on" else CLASSES:
            pair = ObjectPair(
                first=first,
                first_colour=colours[k % 10],
                relation=relation,
                second=second,
                second_colour=colours[(3 * k + 1) % 10],
            )
            text = describe_pair(pair)
            parsed = parse_prompt(f"a photo of {text}, back view, black background")
            assert parsed.pair([str(colour) for colour in parsed.colours]) == pair
            assert (parsed.view, parsed.background) == ("back view", "black")
            assert names_two_objects(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a ball on top of a Table", ("ball", None, "on", "table", None)),
        ("a red doughnut in front of the box", ("donut", "red", "in front of", "cube", None)),
        ("a mug, behind a blue house on a gray background", ("mug", None, "behind", "house", "blue")),
        ("a lamp with a green shade next to a robot", ("lamp", "green", "next to", "robot", None)),
    ],
)
def test_tolerant_reading_of_two_objects(text: str, expected: tuple[str | None, ...]) -> None:
    prompt = parse_prompt(text)
    assert isinstance(prompt.second, SecondObject)
    second = prompt.second
    assert (prompt.class_name, prompt.colour, second.relation, second.class_name, second.colour) == expected


def test_two_objects_are_told_from_one_and_stay_out_of_the_networks_words() -> None:
    assert not any(
        map(names_two_objects, ("a ball on a white background", "a blue robot", "a ball on", "", "on a cube"))
    )
    assert names_two_objects("a dragon-like ball NEXT TO a cube")
    assert not {"on", "next", "behind"} & set(VOCABULARY)
    with pytest.raises(UserError, match="names two objects.*--prior toybox-ideal.*or name one object"):
        parse_single_request("a ball on a cube")
    assert parse_single_request("a blue robot") == parse_prompt("a blue robot")
    assert parse_prompt("a blue robot").colours == ("blue",)
    with pytest.raises(ValueError, match="fewer than two objects"):
        parse_prompt("a blue robot").pair(["red", "blue"])

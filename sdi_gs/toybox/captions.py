"""The words of toybox: write sentences about objects, and parse them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import get_args

from sdi_gs.cameras import VIEW_WORDS, ViewWord
from sdi_gs.errors import UserError
from sdi_gs.settings.backgrounds import BACKGROUND_NAMES, BackgroundName
from sdi_gs.toybox.classes import CLASSES, COLOURS, ClassName
from sdi_gs.toybox.styles import STYLE_NAMES, StyleName

PART_OF: dict[str, ClassName] = {"hat": "snowman", "scarf": "snowman", "roof": "house", "shade": "lamp"}
"""Parts that can carry the colour of their object ("a house with a blue roof")."""

# Words without meaning for the object.
_FILLERS = frozenset(
    "a an the of with and one single photo photograph picture image rendering render rendered dslr 3d model"
    " toy object thing in its".split()
)
_SYNONYMS: dict[str, ClassName] = {"doughnut": "donut", "cup": "mug", "sphere": "ball", "box": "cube"}
_VIEW_PATTERNS: tuple[tuple[str, ViewWord], ...] = (
    (r"front view", "front view"),
    (r"side view", "side view"),
    (r"(?:back|rear) view", "back view"),
    (r"(?:overhead|top) view", "overhead view"),
)

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {*CLASSES, *_SYNONYMS, *COLOURS, *PART_OF, *_FILLERS, *BACKGROUND_NAMES, "grey", "background"}
        | {"rear", "top", *" ".join(VIEW_WORDS).split()}
    )
)
"""Every word that ``parse_prompt`` knows but the styles: the words of the trained network."""


@dataclass(frozen=True, kw_only=True)
class ToyboxPrompt:
    """Content of a sentence; None for properties that it leaves open."""

    class_name: ClassName | None = None
    """The object, one of ``CLASSES``."""
    colour: str | None = None
    """Its colour, one of ``COLOURS``."""
    style: StyleName | None = None
    """The pattern of its surface; None for a plain object."""
    view: ViewWord | None = None
    """The side it is seen from."""
    background: BackgroundName | None = None
    """The background."""


def describe(class_name: ClassName, colour: str, style: StyleName | None = None) -> str:
    """Return the plain words for an object, with the colour named at the part that has it."""
    styled = "a" if style is None else f"a {style}"
    coloured = f"{_article(colour)} {colour}"
    match class_name:
        case "snowman":
            return f"{styled} snowman with {coloured} hat"
        case "house":
            return f"{styled} house with {coloured} roof"
        case _:
            return f"{coloured} {class_name}" if style is None else f"{styled} {colour} {class_name}"


def parse_prompt(text: str) -> ToyboxPrompt:
    """Read a sentence; the empty text is the unconditional prompt.

    Raises UserError for an unknown word, for two objects, colours, styles, views or backgrounds, and for a part of
    another object.
    """
    remaining, view = _take_view(text)
    remaining, background = _take_background(remaining, text)
    names: list[ClassName] = []
    colours: list[str] = []
    styles: list[StyleName] = []
    parts: list[str] = []
    for word in re.findall(r"[^\W_]+", remaining):
        name = _class_of(word)
        if name is not None:
            names.append(name)
        elif word in COLOURS:
            colours.append(word)
        elif word in STYLE_NAMES:
            styles.append(word)
        elif word in PART_OF:
            parts.append(word)
        elif word not in _FILLERS:
            raise UserError(unknown_word_message(word, text))
    if len(names) > 1:
        raise UserError(
            f'"{text}" names more than one object ({", ".join(names)}); toybox supports one object per prompt now:'
            " name one"
        )
    if len(colours) > 1:
        raise UserError(
            f'"{text}" names more than one colour ({", ".join(colours)}); toybox supports one colour per prompt:'
            " name one"
        )
    if len(styles) > 1:
        raise UserError(f'"{text}" names more than one style ({", ".join(styles)}); toybox supports one: name one')
    for part in parts:
        if PART_OF[part] not in names:
            owner = f"a {PART_OF[part]}"
            raise UserError(
                f'"{text}" asks for a {part}, but in toybox only {owner} has one: say "{owner} with a red {part}"'
                f" or leave the {part} out"
            )
    return ToyboxPrompt(
        class_name=names[0] if names else None,
        colour=colours[0] if colours else None,
        style=styles[0] if styles else None,
        view=view,
        background=background,
    )


def style_in(text: str) -> StyleName | None:
    """Return the first style that a text names, whatever its other words are."""
    words = re.findall(r"[^\W_]+", text.lower())
    return next((style for word in words for style in STYLE_NAMES if word == style), None)


def parse_plain_request(text: str) -> ToyboxPrompt:
    """Parse a prompt for a prior of plain objects; raises UserError as ``parse_request`` does, and for a style."""
    prompt = parse_request(text)
    if prompt.style is not None:
        raise UserError(
            f'"{text}" asks for a {prompt.style} object, which only the exact prior knows, as the style of a whole run:'
            " use --prior toybox-ideal and name the style in the prompt, or leave it out"
        )
    return prompt


def parse_request(text: str) -> ToyboxPrompt:
    """Parse a prompt for a toybox prior, which must name an object or be empty.

    Raises UserError as ``parse_prompt`` does, and for a text that is not empty but names no object.
    """
    prompt = parse_prompt(text)
    if prompt.class_name is None and text.strip():
        raise UserError(f'"{text}" names no object; toybox knows {", ".join(CLASSES)}, as in "a blue robot"')
    return prompt


def unknown_word_message(word: str, text: str) -> str:
    """Return an error line that names the word, toybox's vocabulary, and a prior for other sentences."""
    # Runs add the view and the background to what the user wrote.
    said = re.sub(r",? (?:front|side|back|overhead) view\b.*", "", text)
    return (
        f'toybox does not know the word "{word}" in "{said}"; it knows the objects {", ".join(CLASSES)}, the'
        f" colours {', '.join(COLOURS)} and, under toybox-ideal, the styles {', '.join(STYLE_NAMES)}; for anything"
        " else use Stable Diffusion 2.1: --prior sd21-base"
    )


def _take_view(text: str) -> tuple[str, ViewWord | None]:
    """Remove the view words from the lower-case text."""
    remaining, view = re.sub(r"[-\s]+", " ", text.lower()), None
    for pattern, word in _VIEW_PATTERNS:
        remaining, found = re.subn(rf"\b{pattern}\b", " ", remaining)
        if found and view is not None:
            raise UserError(
                f'"{text}" names more than one view ({view}, {word}); name one, or none in a run, which adds its own'
            )
        view = word if found else view
    return remaining, view


def _take_background(remaining: str, text: str) -> tuple[str, BackgroundName | None]:
    """Remove the background's words from the remaining text."""
    found: list[str] = re.findall(r"\b(\w+) background\b", remaining)
    if not found:
        return remaining, None
    names = {"gray" if word == "grey" else word for word in found}
    background: BackgroundName | None = next((name for name in BACKGROUND_NAMES if name in names), None)
    if background is None or len(names) > 1:
        raise UserError(
            f'"{text}" asks for the background {", ".join(sorted(names))}; toybox knows one of'
            f" {', '.join(BACKGROUND_NAMES)} at a time; a run adds its own, so leave it out of the prompt"
        )
    return re.sub(r"\b(?:on )?(?:an? )?\w+ background\b", " ", remaining), background


def _class_of(word: str) -> ClassName | None:
    if word in _SYNONYMS:
        return _SYNONYMS[word]
    return next((name for name in get_args(ClassName) if name == word), None)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"

"""The words of toybox: write sentences about objects, and parse them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from sdi_gs.cameras import VIEW_WORDS, ViewWord
from sdi_gs.errors import UserError
from sdi_gs.settings.backgrounds import BACKGROUND_NAMES, BackgroundName
from sdi_gs.toybox.classes import CLASSES, COLOURS, ClassName
from sdi_gs.toybox.pairs import RELATIONS, ObjectPair, RelationName, require_carrier
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

_RELATION_PATTERN = re.compile(r"\b(next to|in front of|behind|on top of|on)\b")

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {*CLASSES, *_SYNONYMS, *COLOURS, *PART_OF, *_FILLERS, *BACKGROUND_NAMES, "grey", "background"}
        | {"rear", "top", *" ".join(VIEW_WORDS).split()}
    )
)
"""Every word that ``parse_prompt`` knows but styles and relations: the words of the trained network."""


@dataclass(frozen=True, kw_only=True)
class SecondObject:
    """The other object of a scene of two, and where the first one is."""

    relation: RelationName
    """The first object is on, next to, in front of or behind this one."""
    class_name: ClassName
    """This object, one of ``CLASSES``."""
    colour: str | None = None
    """Its colour, one of ``COLOURS``; None if it is open."""


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
    second: SecondObject | None = None
    """The other object of a scene of two; class and colour above are the first one's."""

    @property
    def colours(self) -> tuple[str | None, ...]:
        """Return the colour of each object, None where it is open."""
        return (self.colour,) if self.second is None else (self.colour, self.second.colour)

    def pair(self, colours: Sequence[str]) -> ObjectPair:
        """Return the two objects of this prompt in two colours; ValueError for one object."""
        if self.class_name is None or self.second is None:
            raise ValueError("a prompt of fewer than two objects has no pair")
        first_colour, second_colour = colours
        return ObjectPair(
            first=self.class_name,
            first_colour=first_colour,
            relation=self.second.relation,
            second=self.second.class_name,
            second_colour=second_colour,
        )


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


def describe_pair(pair: ObjectPair) -> str:
    """Return the plain words for a scene of two objects."""
    first, second = describe(pair.first, pair.first_colour), describe(pair.second, pair.second_colour)
    return f"{first} {pair.relation} {second}"


def parse_prompt(text: str) -> ToyboxPrompt:
    """Read a sentence about one object or two; the empty text is the unconditional prompt.

    Raises UserError for an unknown word, for two objects without a relation, for three, for two colours of an object,
    styles, views or backgrounds, for a part of another object, and for an object on one that carries nothing.
    """
    remaining, view = _take_view(text)
    remaining, background = _take_background(remaining, text)
    clauses = _RELATION_PATTERN.split(remaining)
    first = _parse_object(clauses[0], text)
    second = _parse_second(first, clauses[1:], text) if len(clauses) > 1 else None
    return replace(first, view=view, background=background, second=second)


def _parse_second(first: ToyboxPrompt, clauses: list[str], text: str) -> SecondObject:
    """Read a relation and the object after it; more of them are an error."""
    if len(clauses) > 2:
        raise UserError(
            f'"{text}" names more than one relation ({", ".join(clauses[::2])}); toybox supports two objects per'
            ' prompt: write one relation between two, as in "a red ball on a blue cube"'
        )
    word, clause = clauses
    relation = RELATIONS[RELATIONS.index("on" if word == "on top of" else word)]
    second = _parse_object(clause, text)
    if first.class_name is None or second.class_name is None:
        where = "before" if first.class_name is None else "after"
        raise UserError(f'"{text}" names no object {where} "{word}": write it as in "a red ball {word} a blue cube"')
    if first.style is not None or second.style is not None:
        raise UserError(
            f'"{text}" asks for a {first.style or second.style} object beside another; a style needs a prompt with one'
            " object: leave the style or an object out"
        )
    require_carrier(relation, second.class_name)
    return SecondObject(relation=relation, class_name=second.class_name, colour=second.colour)


def _parse_object(clause: str, text: str) -> ToyboxPrompt:
    """Read the words about one object; ``text`` is the whole prompt, for messages."""
    names: list[ClassName] = []
    colours: list[str] = []
    styles: list[StyleName] = []
    parts: list[str] = []
    words = re.findall(r"[^\W_]+", clause)
    for place, word in enumerate(words):
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
            if names and any(_class_of(later) for later in words[place:]):
                raise UserError(
                    f'toybox does not know the relation "{word}" in "{text}"; between two objects it knows'
                    f" {', '.join(RELATIONS)}: use one of these"
                )
            raise UserError(unknown_word_message(word, text))
    if len(names) > 1:
        raise UserError(
            f'"{text}" names more than one object ({", ".join(names)}); toybox supports one object per prompt, or two'
            f" with a relation ({', '.join(RELATIONS)}) between them: name one, or write"
            ' "a red ball on a blue cube"'
        )
    if len(colours) > 1:
        raise UserError(
            f'"{text}" names more than one colour ({", ".join(colours)}); toybox supports one colour per object:'
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
    )


def names_two_objects(text: str) -> bool:
    """Return whether a text has a relation with a known object before and after it, whatever its other words are."""
    clauses = _RELATION_PATTERN.split(text.lower())
    named = [any(_class_of(word) for word in re.findall(r"[^\W_]+", clause)) for clause in clauses[::2]]
    return sum(named) > 1


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


def parse_single_request(text: str) -> ToyboxPrompt:
    """Parse a prompt for a prior of single plain objects; UserError as ``parse_plain_request``, and for two objects."""
    prompt = parse_plain_request(text)
    require_one_object(prompt, text)
    return prompt


def require_one_object(prompt: ToyboxPrompt, text: str) -> None:
    """Raise UserError for a prompt of two objects, for priors that know objects alone."""
    if prompt.second is not None:
        raise UserError(
            f'"{text}" names two objects, which only the exact prior knows, in a run whose own prompt names two: use'
            " --prior toybox-ideal and name both in the prompt, or name one object"
        )


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

"""The worlds of the closed-form prior: what its prompts may name, and random scenes of that.

A content is what a prompt names, as words, None for what it leaves open; its scenes have random proportions. There are
two worlds, of objects alone and of two objects in a scene. The empty text is everything in the run's own world, so that
guidance compares a scene of two objects with other scenes of two.

Letters: B prompts, E embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from sdi_gs.priors.ideal_conditions import chosen, embed, properties_of
from sdi_gs.settings.backgrounds import BackgroundName
from sdi_gs.toybox.captions import SecondObject, parse_plain_request, parse_single_request
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES, COLOURS
from sdi_gs.toybox.objects import Scene, sample_object
from sdi_gs.toybox.pairs import CARRIERS, RELATIONS, ObjectPair, sample_pair

Content = tuple[str | None, ...]

_Name = TypeVar("_Name", bound=str)


class World(Protocol):
    """What prompts and embeddings mean to the closed-form prior."""

    everything: Content
    """Content of the empty text."""

    def embed(self, prompts: Sequence[str]) -> Tensor:  # [B, 1, E]
        """Return the embeddings of prompts; UserError for one that is not of this world."""
        ...

    def properties_of(self, embedding: Tensor) -> tuple[Content, list[float], BackgroundName | None]:
        """Return the content of an embedding [E], the weights of its view words, and its background."""
        ...

    def sample(self, content: Content, rng: np.random.Generator) -> Scene:
        """Draw a scene of a content."""
        ...


class ObjectsAlone:
    """One object at the origin; a content is its class and its colour."""

    everything: Content = (None, None)

    def embed(self, prompts: Sequence[str]) -> Tensor:  # [B, 1, E]
        """Return the embeddings of ``ideal_conditions``."""
        return embed([parse_single_request(text) for text in prompts])

    def properties_of(self, embedding: Tensor) -> tuple[Content, list[float], BackgroundName | None]:
        """Return the content of an embedding [E], the weights of its view words, and its background."""
        class_name, colour, views, background = properties_of(embedding)
        return (class_name, colour), views, background

    def sample(self, content: Content, rng: np.random.Generator) -> Scene:
        """Draw an object of random proportions; what is open is drawn first."""
        class_name, colour = content
        return (
            sample_object(
                _named(CLASSES, class_name) or CLASSES[rng.integers(len(CLASSES))],
                colour or list(COLOURS)[rng.integers(len(COLOURS))],
                rng,
            ),
        )


class ObjectPairs:
    """Two objects in a relation; a content is class and colour of the first, the relation, and those of the second.

    A prompt of one object means this object alone, as a negative prompt may; only the empty text is all pairs.
    """

    everything: Content = (None,) * 5

    def embed(self, prompts: Sequence[str]) -> Tensor:  # [B, 1, E]
        """Return the embeddings of ``ideal_conditions`` with the blocks of the second object after them."""
        parsed = [parse_plain_request(text) for text in prompts]
        return torch.cat([embed(parsed), _embed_second([prompt.second for prompt in parsed])[:, None]], dim=2)

    def properties_of(self, embedding: Tensor) -> tuple[Content, list[float], BackgroundName | None]:
        """Return the content of an embedding [E], the weights of its view words, and its background."""
        first, relations, classes, colours = embedding.cpu().split(
            [len(embedding) - _SECOND_WIDTH, len(RELATIONS), len(CLASSES), len(COLOUR_NAMES)]
        )
        class_name, colour, views, background = properties_of(first)
        blocks = relations.tolist(), classes.tolist(), colours.tolist()
        second = tuple(map(chosen, (RELATIONS, CLASSES, COLOUR_NAMES), blocks))
        return (class_name, colour, *second), views, background

    def sample(self, content: Content, rng: np.random.Generator) -> Scene:
        """Draw a scene of random proportions and placement; what is open is drawn first."""
        class_name, colour, relation, second, second_colour = content
        if class_name is not None and relation is None:
            return ALONE.sample((class_name, colour), rng)
        drawn = _named(RELATIONS, relation) or RELATIONS[rng.integers(len(RELATIONS))]
        carriers = CARRIERS if drawn == "on" else CLASSES
        return sample_pair(
            ObjectPair(
                first=_named(CLASSES, class_name) or CLASSES[rng.integers(len(CLASSES))],
                first_colour=colour or COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))],
                relation=drawn,
                second=_named(CLASSES, second) or carriers[rng.integers(len(carriers))],
                second_colour=second_colour or COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))],
            ),
            rng,
        )


ALONE = ObjectsAlone()
PAIRS = ObjectPairs()

_SECOND_WIDTH = len(RELATIONS) + len(CLASSES) + len(COLOUR_NAMES)


def _embed_second(seconds: Sequence[SecondObject | None]) -> Tensor:  # [B, 30]
    """Return the blocks of the second objects, zeros for prompts without one."""
    rows = [
        [float(second is not None and second.relation == name) for name in RELATIONS]
        + [float(second is not None and second.class_name == name) for name in CLASSES]
        + [float(second is not None and second.colour == name) for name in COLOUR_NAMES]
        for second in seconds
    ]
    return torch.tensor(rows)


def _named(names: Sequence[_Name], word: str | None) -> _Name | None:
    """Return the name that equals a word, or None."""
    return next((name for name in names if name == word), None)

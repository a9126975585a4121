"""toybox-ideal in a world where every object has one style: the exact denoiser of all its members.

Objects have canonical proportions. The components of the mixture are objects, colours, cameras and backgrounds; within
each, every patch is light or dark (``patch_mixture.py``), or of any shade where no prompt asks for the style. Latents
are single pixels in [-1, 1], so that each belongs to one patch. A camera, where there is one, is known exactly: its
components are rendered when it is first seen.

Letters: B images, V views, H W pixels, M components, E embedding width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from sdi_gs.cameras import VIEW_WORDS, CameraBatch, ViewWord
from sdi_gs.errors import UserError
from sdi_gs.priors.ideal_conditions import embed, heard_views, properties_of, side_cameras
from sdi_gs.priors.noise_schedules import scaled_linear_schedule
from sdi_gs.priors.patch_mixture import TWO_SHADES, PatchComponents, PatchMixture, components_of, join, patch_noise
from sdi_gs.settings.backgrounds import BACKGROUND_COLOURS, BACKGROUND_NAMES, BackgroundName
from sdi_gs.settings.priors import IdealPriorConfig
from sdi_gs.toybox.captions import parse_request, require_one_object
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES, COLOURS, ClassName
from sdi_gs.toybox.objects import canonical_object
from sdi_gs.toybox.patches import render_patches
from sdi_gs.toybox.splits import split_seed
from sdi_gs.toybox.styles import StyleName

# Renders are affine in the object's colour, so that those in two colours give all others.
DARKEST, BRIGHTEST = "black", "white"
OPEN_SHADES = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""Levels of the patches that the empty prompt knows: of any shade, where a style means dark or light."""
KEPT = 24
"""Mixtures kept in memory: those of the views of a round, for two prompts."""

_Kept = TypeVar("_Kept")


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What an embedding stands for; None for what it leaves open."""

    class_name: ClassName | None
    colour: str | None
    views: tuple[tuple[ViewWord, float], ...]
    background: BackgroundName | None


class IdealPatchPrior:
    """The closed-form prior of styled objects; prompts and embeddings are those of ``IdealPrior``.

    The style belongs to the whole world: every prompt is about objects in this style. Only the empty prompt leaves it
    open: it knows all objects with patches of any shade, so that guidance has something to say about detail.
    """

    name = "toybox-ideal"
    knows_cameras = True

    def __init__(self, config: IdealPriorConfig, style: StyleName, *, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.style: StyleName = style
        self.schedule = scaled_linear_schedule()
        self.image_size = config.image_size
        self.device = torch.device(device)
        self._mixtures: OrderedDict[Hashable, PatchMixture] = OrderedDict()
        self._sides: OrderedDict[Hashable, PatchComponents] = OrderedDict()

    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return embeddings [B, 1, E]; raises UserError as ``parse_request`` does, and for another style."""
        parsed = [parse_request(text) for text in prompts]
        for text, prompt in zip(prompts, parsed, strict=True):
            require_one_object(prompt, text)
            if prompt.style not in (None, self.style):
                raise UserError(
                    f'"{text}" asks for a {prompt.style} object, but this is a {self.style} prior, as the run\'s prompt'
                    " is: use one style"
                )
        return embed(parsed).to(self.device)

    def encode_images(
        self,
        images: Tensor,  # [B, H, W, 3] in [0, 1]
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the pixels in [-1, 1], [B, 3, H, W]; nothing is drawn from the generator."""
        return images.permute(0, 3, 1, 2) * 2.0 - 1.0

    def decode_latents(
        self,
        latents: Tensor,  # [B, 3, H, W]
    ) -> Tensor:
        """Return images [B, H, W, 3] in [0, 1]."""
        return (latents.detach() * 0.5 + 0.5).clamp(0.0, 1.0).permute(0, 2, 3, 1)

    @torch.no_grad()
    def predict_noise(
        self,
        noised_latents: Tensor,  # [B, 3, H, W]
        timestep: int,
        embeddings: Tensor,  # [B, 1, E]
        cameras: CameraBatch | None = None,  # V of them, B a multiple of V
    ) -> Tensor:
        """Return the exact noise [B, 3, H, W] for the mixture of each embedding, at its camera if there are cameras."""
        level = self.schedule.alpha_cumprod(timestep)
        predicted = torch.empty_like(noised_latents)
        for row, embedding in enumerate(embeddings[:, 0].cpu()):
            wanted = _wanted(embedding, self.config)
            shades = TWO_SHADES if wanted.class_name is not None else OPEN_SHADES
            if cameras is None:
                mixture = self._seen_from_sides(wanted)
            else:
                view = row % len(cameras)
                mixture = self._seen_by(wanted, cameras.rows(slice(view, view + 1)))
            predicted[row] = patch_noise(noised_latents[row].cpu(), mixture, level, self.config.styled_std, shades)
        return predicted

    def _seen_by(self, wanted: _Wanted, camera: CameraBatch) -> PatchMixture:
        """Return the mixture at one camera: every object, colour and background that the prompt leaves open."""
        pose = (*camera.world_from_camera.flatten().tolist(), *camera.intrinsics.flatten().tolist())
        return _kept(
            self._mixtures,
            (wanted.class_name, wanted.colour, wanted.background, pose),
            lambda: self._at(wanted, camera),
        )

    def _at(self, wanted: _Wanted, camera: CameraBatch) -> PatchMixture:
        names = CLASSES if wanted.class_name is None else (wanted.class_name,)

        def seen(colour: str) -> PatchComponents:
            """Return all objects in one colour."""
            items = [canonical_object(name, colour, self.style) for name in names]
            return components_of(render_patches(items, camera.repeated(len(items))))

        if wanted.colour is not None:
            by_colour = [seen(wanted.colour)]
        else:
            by_colour = _in_every_colour(seen(DARKEST), seen(BRIGHTEST))
        parts = [
            components.over(np.tile(BACKGROUND_COLOURS[background], (len(names), 1)))
            for components in by_colour
            for background in _backgrounds(wanted)
        ]
        return parts[0] if len(parts) == 1 else join(parts, [1.0 / len(parts)] * len(parts))

    def _seen_from_sides(self, wanted: _Wanted) -> PatchMixture:
        """Return the mixture of one rendered set, or of several weighted by view."""
        return _kept(self._mixtures, wanted, lambda: self._from_sides(wanted))

    def _from_sides(self, wanted: _Wanted) -> PatchMixture:
        sides: Sequence[tuple[ViewWord | None, float]] = wanted.views or [(None, 1.0)]
        backgrounds = _backgrounds(wanted)
        parts = []
        for view, _ in sides:
            key = (wanted.class_name, wanted.colour, view)
            components = _kept(self._sides, key, lambda view=view: self._side(wanted, view))
            palette = [BACKGROUND_COLOURS[backgrounds[j % len(backgrounds)]] for j in range(len(components))]
            parts.append(components.over(np.array(palette)))
        return parts[0] if len(parts) == 1 else join(parts, [weight for _, weight in sides])

    def _side(self, wanted: _Wanted, view: ViewWord | None) -> PatchComponents:
        """Return random cameras of one side, with a random object or colour each where the prompt leaves it open."""
        rng = split_seed("prior", self.config.seed)
        count = self.config.unconditional_renders if view is None else self.config.renders_per_view
        items = [
            canonical_object(
                wanted.class_name or CLASSES[rng.integers(len(CLASSES))],
                wanted.colour or COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))],
                self.style,
            )
            for _ in range(count)
        ]
        return components_of(render_patches(items, side_cameras(self.config, view, count, rng)))


def _wanted(
    embedding: Tensor,  # [E]
    config: IdealPriorConfig,
) -> _Wanted:
    """Return what an embedding stands for to the prior."""
    class_name, colour, named, background = properties_of(embedding)
    views = heard_views(config, named)
    return _Wanted(
        class_name=class_name,
        colour=colour,
        views=tuple((word, weight) for word, weight in zip(VIEW_WORDS, views, strict=True) if weight > 0.0),
        background=background,
    )


def _backgrounds(wanted: _Wanted) -> Sequence[BackgroundName]:
    return BACKGROUND_NAMES if wanted.background is None else (wanted.background,)


def _in_every_colour(darkest: PatchComponents, brightest: PatchComponents) -> list[PatchComponents]:
    """Return components in all ten colours, from those in two: a render is affine in its object's colour."""
    low, high = np.array(COLOURS[DARKEST]), np.array(COLOURS[BRIGHTEST])
    by_colour = []
    for colour in COLOURS.values():
        share = ((np.array(colour) - low) / (high - low)).astype(np.float32)
        by_colour.append(
            replace(
                darkest,
                foreground=darkest.foreground + share * (brightest.foreground - darkest.foreground),
                contrast=darkest.contrast + share * (brightest.contrast - darkest.contrast),
            )
        )
    return by_colour


def _kept(store: OrderedDict[Hashable, _Kept], key: Hashable, make: Callable[[], _Kept]) -> _Kept:
    """Return the value of a key, made where it is not kept; the oldest beyond ``KEPT`` are dropped."""
    if key not in store:
        store[key] = make()
    store.move_to_end(key)
    while len(store) > KEPT:
        store.popitem(last=False)
    return store[key]

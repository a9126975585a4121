"""The judge: a small classifier that recognizes the object, colour and side in a picture of toybox.

It only examines results. It was trained on pictures of its own (the "judge" split), and no loss and no prior may use
it.

Letters: B pictures, H W pixels, F features.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdi_gs.cameras import VIEW_WORDS, ViewWord
from sdi_gs.errors import UserError
from sdi_gs.toybox.captions import ToyboxPrompt
from sdi_gs.toybox.classes import CLASSES, COLOUR_NAMES, ClassName
from sdi_gs.toybox.objects import SIDES_ALIKE

JUDGE_FILE = Path(__file__).parent / "weights" / "judge.safetensors"
JUDGE_IMAGE_SIZE = 64
"""Side in pixels of the training pictures; other sizes are resized."""

_CHANNELS = (32, 64, 128)
_FEATURES = 192
_PICTURES_AT_ONCE = 128


class _Residual(nn.Module):
    """Two convolutions with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, channels), nn.GroupNorm(2, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(inner)))


class JudgeNetwork(nn.Module):
    """Network from pictures [B, 3, 64, 64] in [0, 1] to logits of class [B, 16], colour [B, 10] and view [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for channels in _CHANNELS:
            layers += [nn.Conv2d(before, channels, 4, stride=2, padding=1), _Residual(channels)]
            before = channels
        self.trunk = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(before, 64, 2, stride=2), nn.SiLU(), nn.Flatten())
        self.features = nn.Linear(64 * (JUDGE_IMAGE_SIZE // 16) ** 2, _FEATURES)
        self.heads = nn.Linear(_FEATURES, len(CLASSES) + len(COLOUR_NAMES) + len(VIEW_WORDS))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = F.silu(self.features(self.trunk(images * 2.0 - 1.0)))
        logits = self.heads(seen)
        classes, colours, views = logits.split([len(CLASSES), len(COLOUR_NAMES), len(VIEW_WORDS)], dim=1)
        return classes, colours, views


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Recognized class, colour and view of B pictures, as indices."""

    classes: Tensor  # [B] int64 into CLASSES
    colours: Tensor  # [B] int64 into COLOUR_NAMES
    views: Tensor  # [B] int64 into VIEW_WORDS

    def class_accuracy(self, class_name: ClassName) -> float:
        """Return the share of pictures that show this object."""
        return (self.classes == CLASSES.index(class_name)).float().mean().item()

    def colour_accuracy(self, colour: str) -> float:
        """Return the share of pictures whose object has this colour."""
        return (self.colours == COLOUR_NAMES.index(colour)).float().mean().item()

    def view_accuracy(self, class_name: ClassName, words: list[ViewWord]) -> float | None:
        """Return the share of pictures that show the expected side; None for classes whose sides differ by light."""
        if class_name in SIDES_ALIKE:
            return None
        expected = torch.tensor([VIEW_WORDS.index(word) for word in words])
        return (self.views == expected).float().mean().item()


@dataclass(frozen=True, kw_only=True)
class JudgeScore:
    """The judge's scores of one object's views; the field names are the JSON keys of ``sdi-gs eval``."""

    judge_class: float
    """Share of the views judged to show the prompt's object."""
    judge_colour: float | None
    """Share of the views judged to show the prompt's colour; None for a prompt without a colour."""
    judge_view: float | None
    """Share of the views whose side is judged right; None for objects whose sides differ by light only."""
    judge_back_as_front: float | None
    """Share of the back views that are judged a front; None if ``judge_view`` is."""

    def as_json(self) -> dict[str, Any]:
        """Return the score as JSON keys and values."""
        return asdict(self)


class Judge:
    """The classifier with its weights."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,  # [B, H, W, 3] in [0, 1], over white, gray or black
    ) -> Judgement:
        """Judge pictures, resized to 64 x 64 pixels."""
        pixels = images.detach().cpu().float().permute(0, 3, 1, 2)
        size = (JUDGE_IMAGE_SIZE, JUDGE_IMAGE_SIZE)
        if pixels.shape[2:] != size:
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
        parts = [[head.argmax(dim=1) for head in self._network(part)] for part in pixels.split(_PICTURES_AT_ONCE)]
        classes, colours, views = (torch.cat(head) for head in zip(*parts, strict=True))
        return Judgement(classes=classes, colours=colours, views=views)

    def score(
        self,
        images: Tensor,  # [B, H, W, 3] in [0, 1]
        words: list[ViewWord],  # B of them, the sides that the views are of
        prompt: ToyboxPrompt,
    ) -> JudgeScore:
        """Judge the views of one object; ValueError for a prompt without an object."""
        if prompt.class_name is None:
            raise ValueError("a prompt without an object cannot be judged")
        verdict = self(images)
        view = verdict.view_accuracy(prompt.class_name, words)
        backs = torch.tensor([word == "back view" for word in words])
        fronts = verdict.views[backs] == VIEW_WORDS.index("front view")
        return JudgeScore(
            judge_class=verdict.class_accuracy(prompt.class_name),
            judge_colour=None if prompt.colour is None else verdict.colour_accuracy(prompt.colour),
            judge_view=view,
            judge_back_as_front=fronts.float().mean().item() if view is not None and backs.any() else None,
        )


def load_judge(path: Path = JUDGE_FILE) -> Judge:
    """Load the judge that comes with the package; UserError if its weights are missing or damaged."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"the judge's weights are not at {path}: install the package again")
    network = JudgeNetwork()
    try:
        weights: dict[str, Any] = load_file(path)
        network.load_state_dict({name: value.float() for name, value in weights.items()})
    except Exception as error:  # Truncated files and wrong shapes: each library has its own types.
        raise UserError(f"the judge's weights at {path} are broken ({type(error).__name__}): install again") from error
    return Judge(network)

"""Pictures and normals in the folders that other evaluation tools read.

Letters: V views, H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import Representation
from sdi_gs.errors import UserError
from sdi_gs.evaluation.extent import extent_of, matter_of
from sdi_gs.evaluation.foreign_scenes import BlankScene
from sdi_gs.evaluation.many import Entry
from sdi_gs.evaluation.protocol_views import PLACES, cameras_of
from sdi_gs.files import make_new_folder, write_atomically
from sdi_gs.pictures.images import png_of, to_uint8
from sdi_gs.pictures.views import split_cameras
from sdi_gs.runs.loading import SavedScene
from sdi_gs.settings.protocols import BACKGROUNDS, ViewOptions, ViewProtocol, protocol_with

LayoutName = Literal["gpteval3d", "t3bench"]
GPTEVAL_VIEWS = 120
METHOD = "sdi-gs"
"""Name of the method in GPTEval3D's folder, which people change by renaming it."""


@dataclass(frozen=True, kw_only=True)
class _Layout:
    protocol: ViewProtocol
    name_of: Callable[[int, str], str]
    """From a view's number and "rgb" or "normal" to the file's name."""
    folder_of: Callable[[int, str, int], str]
    """From a prompt's number, the prompt and a seed to the folder of its pictures."""


def _t3bench_name(index: int, kind: str) -> str:
    # All places through one field of view, then through the next; T3Bench names the place first.
    field, place = divmod(index, PLACES)
    return f"{place:03d}_{field}.png" if kind == "rgb" else f"{place:03d}_{field}_normal.png"


LAYOUTS: dict[LayoutName, _Layout] = {
    "gpteval3d": _Layout(
        protocol=protocol_with("orbit", ViewOptions(count=GPTEVAL_VIEWS)),
        name_of=lambda index, kind: f"{kind}_{index}.png",
        folder_of=lambda number, prompt, seed: f"methods/{METHOD}/{number}/{seed}",
    ),
    "t3bench": _Layout(
        protocol=protocol_with("t3bench-quality", ViewOptions()),
        name_of=_t3bench_name,
        folder_of=lambda number, prompt, seed: f"{prompt.replace(' ', '_').replace('/', '_')}_{seed}",
    ),
}


def write_layout(
    folder: Path,
    name: LayoutName,
    entries: Sequence[Entry],
    *,
    open_scene: Callable[[Path], SavedScene],
    views: ViewOptions,
) -> list[Path]:
    """Write the pictures of all entries into a new folder and return the folders of their pictures.

    The layout decides on the cameras, ``views`` may change size and background. What failed is written as pictures of
    the background. Raises UserError for a folder that is used, for an entry without a prompt, and for two entries of
    the same prompt and seed.
    """
    layout = LAYOUTS[name]
    protocol = replace(
        layout.protocol,
        size=views.size or layout.protocol.size,
        background=views.background or layout.protocol.background,
    )
    scenes = [_opened(entry, open_scene) for entry in entries]
    prompts = list(dict.fromkeys(prompt for _, prompt, _ in scenes))
    targets = [layout.folder_of(prompts.index(prompt), prompt, seed) for _, prompt, seed in scenes]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise UserError(
            f"two of these scenes have the same prompt and seed, and both belong into {twice}: leave one out"
        )
    make_new_folder(folder)
    for (representation, _, _), target in zip(scenes, targets, strict=True):
        _write_pictures(folder / target, representation, protocol, layout.name_of)
    text = json.dumps(prompts, indent=2, ensure_ascii=False)
    write_atomically(folder / "prompts.json", text.encode("utf-8", "backslashreplace"))
    return [folder / target for target in targets]


def _opened(entry: Entry, open_scene: Callable[[Path], SavedScene]) -> tuple[Representation, str, int]:
    if entry.failure is not None:
        assert entry.prompt is not None
        return BlankScene(), entry.prompt, entry.seed or 0
    scene = open_scene(entry.path)
    prompt = entry.prompt or scene.prompt
    if not prompt:
        raise UserError(f'{entry.path} has no prompt to be listed by: add --prompt "a blue robot"')
    seed = entry.seed if entry.seed is not None else 0 if scene.run is None else scene.run.config.seed
    return scene.representation, prompt, seed


@torch.no_grad()
def _write_pictures(
    folder: Path, representation: Representation, protocol: ViewProtocol, name_of: Callable[[int, str], str]
) -> None:
    folder.mkdir(parents=True)
    background = torch.tensor(BACKGROUNDS[protocol.background], device=representation.device)
    index = 0
    for part in split_cameras(cameras_of(protocol, extent_of(representation, matter_of(representation)))):
        cameras = part.to(representation.device)
        render = representation.render(cameras, background.expand(len(part), 3), with_depth=True)
        assert render.depth is not None
        shown = normals_from_depth(render.depth, cameras) * 0.5 + 0.5
        normals = shown * render.alpha + background * (1.0 - render.alpha)
        for rgb, normal in zip(to_uint8(render.rgb), to_uint8(normals), strict=True):
            for picture, kind in ((rgb, "rgb"), (normal, "normal")):
                write_atomically(folder / name_of(index, kind), png_of(picture))
            index += 1


def normals_from_depth(
    depth: Tensor,  # [V, H, W, 1] z depth
    cameras: CameraBatch,  # V of them
) -> Tensor:  # [V, H, W, 3] unit, world axes
    """Return the surface's normals towards the camera, from the depths of neighbouring pixels."""
    rows = torch.arange(cameras.height, device=depth.device) + 0.5
    columns = torch.arange(cameras.width, device=depth.device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    rays = torch.einsum("bij,hwj->bhwi", cameras.intrinsics.inverse(), torch.stack([x, y, torch.ones_like(x)], dim=-1))
    points = rays * depth
    padded = F.pad(points.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate")
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]).permute(0, 2, 3, 1)
    along = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]).permute(0, 2, 3, 1)
    # x to the right and y downwards: their product points away from the camera.
    towards = F.normalize(torch.linalg.cross(along, across), dim=-1)
    return torch.einsum("bij,bhwj->bhwi", cameras.world_from_camera[:, :3, :3], towards)

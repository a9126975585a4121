"""What the page shows of files: the right side, colours and size, in both pictures, and whatever their units.

The scenes are written with plyfile from a description of the format, not by this project's exporter.
"""

from __future__ import annotations

import math
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from sdi_gs.viewer import labels

if TYPE_CHECKING:
    from headless_page import ViewerPage

pytestmark = [pytest.mark.browser, pytest.mark.slow]

C0 = 0.28209479177387814
WHITE = np.array([255, 255, 255])
FACES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "front": ((1, 0, 0), (220, 30, 30)),
    "back": ((-1, 0, 0), (30, 30, 220)),
    "side": ((0, 1, 0), (220, 200, 20)),
    "far side": ((0, -1, 0), (200, 20, 200)),
    "top": ((0, 0, 1), (20, 180, 40)),
    "bottom": ((0, 0, -1), (40, 40, 40)),
}
"""Outward normal in the training world and colour of each face."""
HALF = np.array([0.25, 0.4, 0.5])
"""Half the sides of the box: it looks different from every side."""
DEVIATION = 0.022
"""Of a splat; its neighbours are 0.016 to 0.031 away, so that no face lets light through."""
PATCH = (0, 0, 0)
"""Colour of the front's upper right quarter, as seen from there: the object is no mirror image of itself."""


def box(per_side: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Positions [N, 3] and colours [N, 3] of a painted box's surface, z up and front +x."""
    grid = np.meshgrid(*[np.linspace(-0.97, 0.97, per_side)] * 2)
    # Uneven: a round splat exactly level with the camera has no longest axis, and viser's shader drops it.
    uneven = np.random.default_rng(0).uniform(-0.01, 0.01, (len(FACES), 2, per_side, per_side))
    positions, colours = [], []
    for (normal, colour), shift in zip(FACES.values(), uneven, strict=True):
        u, v = grid + shift
        axis = int(np.flatnonzero(normal)[0])
        face = np.empty((u.size, 3))
        face[:, axis] = sum(normal)
        face[:, [other for other in range(3) if other != axis]] = np.stack([u.ravel(), v.ravel()], axis=1)
        painted = np.tile(np.array(colour), (u.size, 1))
        if normal == (1, 0, 0):
            painted[(face[:, 1] > 0) & (face[:, 2] > 0)] = PATCH
        positions.append(HALF * face)
        colours.append(painted)
    return np.concatenate(positions), np.concatenate(colours)


def write_ply(path: Path, positions: np.ndarray, colours: np.ndarray, deviation: float) -> None:
    """A 3DGS .ply of round, nearly opaque splats in the axes of splat viewers: x right, y down, z forward."""
    x, y, z = positions.T
    columns: dict[str, np.ndarray | float] = {"x": y, "y": -z, "z": -x}
    columns |= {f"f_dc_{channel}": (colours[:, channel] / 255 - 0.5) / C0 for channel in range(3)}
    columns |= {"opacity": 5.0} | {f"scale_{axis}": math.log(deviation) for axis in range(3)}
    columns |= {"rot_0": 1.0, "rot_1": 0.0, "rot_2": 0.0, "rot_3": 0.0}
    rows = np.zeros(len(positions), dtype=[(name, "f4") for name in columns])
    for name, values in columns.items():
        rows[name] = values
    PlyData([PlyElement.describe(rows, "vertex")]).write(path)


def write_dot_splat(path: Path, positions: np.ndarray, colours: np.ndarray, deviation: float) -> None:
    """The same as an antimatter15 .splat."""
    rows = [
        struct.pack("<6f8B", y, -z, -x, *[deviation] * 3, *colour, 253, 255, 128, 128, 128)
        for (x, y, z), colour in zip(positions.tolist(), colours.astype(int).tolist(), strict=True)
    ]
    path.write_bytes(b"".join(rows))


@contextmanager
def served(path: Path) -> Iterator[str]:
    """The address of a page that shows a file."""
    import torch

    from sdi_gs.runs.loading import load
    from sdi_gs.viewer.server import FinishedViewer

    with FinishedViewer(load(path), port=0, device=torch.device("cpu")) as viewer:
        yield f"http://127.0.0.1:{viewer.port}"


def object_mask(picture: np.ndarray) -> np.ndarray:
    """Pixels [H, W] that are not the white background."""
    return np.abs(picture.astype(int) - WHITE).max(axis=-1) > 40


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    """The part of the object that has about this colour."""
    mask = object_mask(picture)
    close = np.abs(picture.astype(int) - np.array(colour)).max(axis=-1) < 60
    return float((close & mask).sum() / max(mask.sum(), 1))


def looked_at(page: ViewerPage, side: str, colour: tuple[int, int, int], least: float = 0.5) -> np.ndarray:
    """The still splats picture after the camera was put before a side."""
    if page.field(labels.PICTURE).input_value() != "splats":
        page.choose(labels.PICTURE, "splats")
    page.press(side)
    page.until(lambda: share_of(page.scene(), colour) > least, f"the {side} comes into view")
    return page.still_scene()


@pytest.fixture(scope="module")
def box_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("scene") / "foreign.ply"
    write_ply(path, *box(), deviation=DEVIATION)
    with served(path) as address:
        yield address


def test_a_foreign_ply_covers_the_expected_pixels_in_the_expected_colour(
    box_address: str, viewer_page: ViewerPage
) -> None:
    viewer_page.faults.clear()
    viewer_page.visit(box_address)
    front = looked_at(viewer_page, "front", FACES["front"][1])
    mask = object_mask(front)
    rows, columns = np.nonzero(mask)
    height, width = columns.max() - columns.min(), rows.max() - rows.min()
    assert abs(rows.mean() / mask.shape[0] - 0.5) < 0.03
    assert abs(columns.mean() / mask.shape[1] - 0.5) < 0.03
    assert height / width == pytest.approx(HALF[1] / HALF[2], rel=0.08)
    assert mask.sum() / (height * width) > 0.95, "a box fills its outline"
    # Three quarters red, one black, and that one in the upper right; the edges are of other colours.
    red, black = share_of(front, FACES["front"][1]), share_of(front, PATCH)
    assert red + black > 0.8
    assert red / (red + black) == pytest.approx(0.75, abs=0.03)
    dark = np.argwhere(front.max(axis=-1) < 60)
    assert dark[:, 0].mean() < rows.mean()
    assert dark[:, 1].mean() > columns.mean()
    assert viewer_page.faults == []


@pytest.fixture
def resized(viewer_page: ViewerPage) -> Iterator[ViewerPage]:
    """The page, in its usual size again afterwards."""
    usual = viewer_page.page.viewport_size
    yield viewer_page
    if usual is not None:
        viewer_page.page.set_viewport_size(usual)


@pytest.mark.parametrize(("width", "height"), [(420, 700), (1200, 500)])
def test_the_panel_never_covers_the_picture(box_address: str, resized: ViewerPage, width: int, height: int) -> None:
    resized.faults.clear()
    resized.visit(box_address)
    resized.page.set_viewport_size({"width": width, "height": height})
    title, is_narrow = resized.page.get_by_text(labels.TITLE, exact=True).first, width < 600

    def picture_fits() -> bool:
        if not (resized.canvas.is_visible() and title.is_visible()):
            return False
        left, top, wide, high = resized.box(resized.canvas)
        panel_left, panel_top, _, _ = resized.box(title)
        if (left, top) != (0.0, 0.0):
            return False
        if is_narrow:
            return wide == width and 0.4 * height <= high <= panel_top
        return high == height and 0.6 * width <= wide <= panel_left

    resized.until(picture_fits, "picture and panel share the screen")
    left, _, wide, _ = resized.box(resized.button(labels.RESET_CAMERA))
    assert left + wide <= width
    if is_narrow:
        assert wide > 0.8 * width
        # Folded, it leaves its picture all but one line.
        title.click()
        resized.until(lambda: resized.box(resized.canvas)[3] > 0.9 * height, "the panel folds and the picture grows")
        title.click()
        resized.until(picture_fits, "the panel opens again")
    looked_at(resized, "front", FACES["front"][1])

    def is_whole_in_the_middle() -> bool:
        picture = resized.scene()
        rows, columns = np.nonzero(object_mask(picture))
        if not len(rows) or columns.min() == 0 or columns.max() == picture.shape[1] - 1:
            return False
        down, right = rows.mean() / picture.shape[0], columns.mean() / picture.shape[1]
        return abs(down - 0.5) < 0.03 and abs(right - 0.5) < 0.03

    # A canvas of another size is drawn anew when the browser has time for it.
    resized.until(is_whole_in_the_middle, "the whole object is in the middle of the picture")
    assert resized.faults == []


def test_every_button_shows_its_own_side(box_address: str, viewer_page: ViewerPage) -> None:
    viewer_page.visit(box_address)
    for side in labels.SIDES:
        picture = looked_at(viewer_page, side, FACES[side][1])
        others = [share_of(picture, colour) for name, (_, colour) in FACES.items() if name not in (side, "bottom")]
        assert max(others) < 0.1, side


@pytest.mark.parametrize("side", ["front", "side", "top"])
def test_both_pictures_agree_on_object_pose_and_colour(box_address: str, viewer_page: ViewerPage, side: str) -> None:
    viewer_page.visit(box_address)
    splats = looked_at(viewer_page, side, FACES[side][1])
    assert "preview by your browser" in viewer_page.text()
    viewer_page.choose(labels.PICTURE, "render")
    viewer_page.until(lambda: "our rasteriser" in viewer_page.text(), "the page says which picture it is")
    viewer_page.until(lambda: bool((viewer_page.scene() != splats).any()), "the render comes")
    viewer_page.until(lambda: is_same_picture(splats, viewer_page.scene()), "both agree")
    assert share_of(viewer_page.scene(), FACES[side][1]) > 0.5


def test_the_render_picture_follows_a_dragged_camera(box_address: str, viewer_page: ViewerPage) -> None:
    viewer_page.visit(box_address)
    looked_at(viewer_page, "front", FACES["front"][1])
    viewer_page.choose(labels.PICTURE, "render")
    viewer_page.until(lambda: share_of(viewer_page.scene(), FACES["front"][1]) > 0.5, "the render of the front comes")
    mouse = viewer_page.page.mouse
    # Below the notice that the browser draws in software, left of the panel.
    mouse.move(40, 380)
    mouse.down()
    mouse.move(150, 380, steps=8)
    mouse.up()

    def turned() -> bool:
        picture = viewer_page.scene()
        return max(share_of(picture, FACES[side][1]) for side in ("side", "far side")) > 0.2

    viewer_page.until(turned, "another face comes into view")
    viewer_page.choose(labels.PICTURE, "splats")
    viewer_page.until(lambda: "preview by your browser" in viewer_page.text(), "the page says which picture it is")
    viewer_page.until(lambda: bool(object_mask(viewer_page.scene()).any()), "the splats come back")
    splats = viewer_page.still_scene()
    viewer_page.choose(labels.PICTURE, "render")
    viewer_page.until(lambda: bool((viewer_page.scene() != splats).any()), "the render comes back")
    viewer_page.until(lambda: is_same_picture(splats, viewer_page.scene()), "both agree")


def test_the_view_command_shows_a_dot_splat_until_ctrl_c_and_the_page_then_says_so(
    viewer_page: ViewerPage, tmp_path: Path
) -> None:
    from headless_page import Server

    write_dot_splat(tmp_path / "foreign.splat", *box(), deviation=DEVIATION)
    server = Server(["view", "foreign.splat", "--port", "0", "--device", "cpu"], folder=tmp_path)
    try:
        viewer_page.visit(server.address)
        front = looked_at(viewer_page, "front", FACES["front"][1])
        assert share_of(front, PATCH) == pytest.approx(0.25, abs=0.06)
        assert labels.ENDED_TITLE not in viewer_page.text()
        assert server.end(signal.SIGINT) == 0
        viewer_page.until(lambda: labels.ENDED_TITLE in viewer_page.text(), "the page says that the server has ended")
    finally:
        server.close()
    assert "Traceback" not in server.said
    assert object_mask(viewer_page.scene()).any(), "the last picture stays"


@pytest.mark.parametrize("unit", [0.01, 40.0])
def test_the_units_of_a_file_do_not_matter(unit: float, viewer_page: ViewerPage, tmp_path: Path) -> None:
    """At 0.01 a deviation is 2e-4, whose square half floats cannot hold.

    Files of other sizes than a run's are compared: those that fill the training cameras' sight are shown as a run is.
    """
    positions, colours = box()
    seen = {}
    for size in (8.0, unit):
        file = tmp_path / f"{size}.ply"
        write_ply(file, size * positions, colours, deviation=DEVIATION * size)
        with served(file) as address:
            viewer_page.visit(address)
            seen[size] = looked_at(viewer_page, "front", FACES["front"][1])
    assert object_mask(seen[unit]).any()
    assert np.abs(seen[8.0].astype(int) - seen[unit]).mean() < 1.5


def test_one_far_splat_neither_moves_the_camera_nor_spoils_the_order(
    box_address: str, viewer_page: ViewerPage, tmp_path: Path
) -> None:
    positions, colours = box()
    positions, colours = np.append(positions, [[4e4, 0.0, 0.0]], axis=0), np.append(colours, [[0, 0, 0]], axis=0)
    write_ply(tmp_path / "outlier.ply", positions, colours, deviation=DEVIATION)
    viewer_page.visit(box_address)
    usual = looked_at(viewer_page, "front", FACES["front"][1])
    with served(tmp_path / "outlier.ply") as address:
        viewer_page.visit(address)
        looked_at(viewer_page, "front", FACES["front"][1])
        viewer_page.until(lambda: "1 too far away" in viewer_page.text(), "the page says what it leaves out")
        # A quantile of distances moves by one splat, and the camera with it: by less than a pixel.
        viewer_page.until(lambda: is_same_picture(usual, viewer_page.scene()), "the object is seen as without it")


def test_splats_smaller_than_a_pixel_do_not_vanish(viewer_page: ViewerPage, tmp_path: Path) -> None:
    """The box in the middle of a wide ring of white splats is a dozen pixels wide, a splat a third of one."""
    positions, colours = box()
    angles = np.linspace(0.0, 2.0 * np.pi, 300, endpoint=False)
    ring = 12.0 * np.stack([np.cos(angles), np.sin(angles), 0.0 * angles], axis=1)
    colours = np.concatenate([colours, np.full((len(ring), 3), 255)])
    write_ply(tmp_path / "far.ply", np.concatenate([positions, ring]), colours, deviation=DEVIATION)
    with served(tmp_path / "far.ply") as address:
        viewer_page.visit(address)
        splats = looked_at(viewer_page, "front", FACES["front"][1], least=0.25)
        viewer_page.choose(labels.PICTURE, "render")
        render = viewer_page.until(
            lambda: picture if object_mask(picture := viewer_page.still_scene()).any() else None, "the render comes"
        )
    assert 60 < object_mask(render).sum() < 400
    assert object_mask(splats).sum() == pytest.approx(object_mask(render).sum(), rel=0.35)


def is_same_picture(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether both have the same object in the same place in the same colours, but for its blurred edges."""
    masks = [object_mask(picture) for picture in (one, other)]
    inside = masks[0] & masks[1]
    if inside.sum() <= 0.95 * (masks[0] | masks[1]).sum():
        return False
    means = [picture[inside].astype(float).mean(axis=0) for picture in (one, other)]
    return bool(np.abs(means[0] - means[1]).max() < 8 and np.abs(one[inside].astype(int) - other[inside]).mean() < 12)

"""The tests' own tools, against a plain viser server with a scene whose picture is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    import viser
    from headless_page import ViewerPage

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def plain_server() -> Iterator[viser.ViserServer]:
    import viser

    from sdi_gs.viewer.guard import stop_server

    server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
    try:
        yield server
    finally:
        stop_server(server)


def test_the_page_is_read_and_used_by_what_stands_on_it(
    plain_server: viser.ViserServer, viewer_page: ViewerPage
) -> None:
    heard = []
    text = plain_server.gui.add_text("Prompt", initial_value="a blue robot")
    number = plain_server.gui.add_number("γ", initial_value=1.0, step=0.1)
    choice = plain_server.gui.add_dropdown("Picture", options=("splats", "render"))
    plain_server.gui.add_button("Pause").on_click(lambda _: heard.append("pause"))
    viewer_page.open(f"http://127.0.0.1:{plain_server.get_port()}")
    assert viewer_page.field("Prompt").input_value() == "a blue robot"
    viewer_page.write("Prompt", "a red car")
    viewer_page.write("γ", "7.5")
    viewer_page.choose("Picture", "render")
    viewer_page.press("Pause")
    viewer_page.until(lambda: heard == ["pause"], "the button is heard")
    wanted = ("a red car", 7.5, "render")
    viewer_page.until(lambda: (text.value, number.value, choice.value) == wanted, "the fields are read")


def test_splats_show_in_the_picture_of_the_canvas_alone(
    plain_server: viser.ViserServer, viewer_page: ViewerPage
) -> None:
    plain_server.gui.add_button("Blue as the theme")
    plain_server.initial_camera.position = (0.0, -4.0, 0.0)
    plain_server.initial_camera.look_at = (0.0, 0.0, 0.0)
    plain_server.scene.add_gaussian_splats(
        "/ball",
        centers=np.zeros((1, 3), np.float32),
        # Not quite round: viser's shader finds no axes for a round splat in the very middle, and drops it.
        covariances=(0.25 * np.eye(3) + 0.02)[None].astype(np.float32),
        rgbs=np.array([[0, 0, 255]], np.uint8),
        opacities=np.ones((1, 1), np.float32),
    )
    viewer_page.open(f"http://127.0.0.1:{plain_server.get_port()}")

    def blue() -> np.ndarray | None:
        picture = viewer_page.scene().astype(int)
        mask = (picture[..., 2] - picture[..., 0] > 100) & (picture[..., 1] < 120)
        return mask if mask.sum() > 100 else None

    mask = viewer_page.until(blue, "the ball appears")
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    assert abs(rows.mean() / height - 0.5) < 0.02
    assert abs(columns.mean() / width - 0.5) < 0.02
    # The theme's buttons are blue as well, and are not in the picture.
    assert columns.max() < 0.7 * width

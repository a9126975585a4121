"""A run that trains behind its page: watched, held, steered, carried away and ended.

One run serves all tests; each leaves it training, but the one that ends it, after which another is begun.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import numpy as np
import pytest
from plyfile import PlyData

from sdi_gs.runs.folder import RunFolder
from sdi_gs.viewer import labels
from sdi_gs.viewer.steering import LABELS

if TYPE_CHECKING:
    from headless_page import Server, ViewerPage
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]

OPTIONS = [
    *("--preset", "smoke", "--prompt", "a blue robot", "--device", "cpu", "--steps", "100000"),
    *("--gaussians.num-initial", "400", "--ideal-prior.renders-per-view", "8"),
    *("--ideal-prior.unconditional-renders", "16", "--outputs.turntable-frames", "2"),
    *("--outputs.checkpoint-every", "0", "--outputs.preview-every", "0"),
]


@dataclass(frozen=True)
class Training:
    """The program, and the run that it writes."""

    server: Server
    folder: RunFolder

    @property
    def log(self) -> list[dict[str, Any]]:
        """All whole lines of the log."""
        return [json.loads(line) for line in self.folder.steps.read_bytes().split(b"\n")[:-1]]


@pytest.fixture(scope="module")
def trainings() -> Iterator[list[Training]]:
    """The runs so far; the last one trains, unless it was ended."""
    begun = list[Training]()
    yield begun
    for training in begun:
        training.server.close()


@pytest.fixture
def training(trainings: list[Training], tmp_path_factory: pytest.TempPathFactory) -> Training:
    """A run that trains."""
    from headless_page import Server

    if not trainings or trainings[-1].server.process.poll() is not None:
        folder = tmp_path_factory.mktemp("training")
        arguments = ["train", *OPTIONS, "--output-dir", str(folder / "run"), "--viewer", "--viewer-port", "0"]
        trainings.append(Training(Server(arguments, folder=folder), RunFolder(folder / "run")))
    return trainings[-1]


@pytest.fixture
def watching(training: Training, viewer_page: ViewerPage) -> ViewerPage:
    """The page of the run, showing splats."""
    viewer_page.visit(training.server.address)
    if viewer_page.field(labels.PICTURE).input_value() != "splats":
        viewer_page.choose(labels.PICTURE, "splats")
    viewer_page.until(lambda: step_of(viewer_page), "the page says where the run stands")
    return viewer_page


def step_of(page: ViewerPage) -> int | None:
    """The step that the page tells."""
    found = re.search(r"step ([\d,]+) of", page.text())
    return int(found[1].replace(",", "")) if found else None


def steps_on(page: ViewerPage, count: int) -> None:
    """Wait until the run has come further by some steps."""
    start = step_of(page) or 0
    page.until(lambda: (step_of(page) or 0) >= start + count, f"{count} more steps")


def phase_of(page: ViewerPage) -> str | None:
    """What the page says that the run does, in the line that begins with it."""
    found = re.search(r"(\w+) · step [\d,]+ of", page.text())
    return found[1] if found else None


def hold(page: ViewerPage, training: Training) -> int:
    """Pause the run and wait until page and log agree on where it stands; the step."""
    page.press(labels.PAUSE)
    page.until(lambda: phase_of(page) == "paused", "the page says that the run is paused")
    return page.until(
        lambda: step if (step := step_of(page)) == training.log[-1]["step"] else None, "page and log agree"
    )


def go_on(page: ViewerPage) -> None:
    """Let the run go on, and wait until the page says so: what it said before would be taken for the next pause."""
    page.press(labels.RESUME)
    page.until(lambda: phase_of(page) == "training", "the page says that the run goes on")


def object_mask(picture: np.ndarray) -> np.ndarray:
    """Pixels [H, W] that are not the white background."""
    return picture.astype(int).min(axis=-1) < 200


def test_the_page_shows_splats_that_change_while_the_run_trains(training: Training, watching: ViewerPage) -> None:
    assert urlparse(training.server.address).hostname == "127.0.0.1"
    first = watching.until(
        lambda: picture if object_mask(picture := watching.scene()).mean() > 0.02 else None, "splats appear"
    )
    rows, columns = np.nonzero(object_mask(first))
    assert abs(rows.mean() / first.shape[0] - 0.5) < 0.15
    assert abs(columns.mean() / first.shape[1] - 0.5) < 0.15
    steps_on(watching, 3)
    mask = object_mask(first)

    def changed() -> bool:
        return bool(np.abs(watching.scene().astype(int) - first)[mask].mean() > 8)

    watching.until(changed, "the splats on the page follow the run")


def test_pause_holds_the_run_and_resume_lets_it_go_on(training: Training, watching: ViewerPage) -> None:
    held = hold(watching, training)
    still = watching.still_scene()
    # A run that went on meanwhile would be farther than one step on.
    watching.press(labels.STEP_ONCE)
    watching.until(lambda: step_of(watching) == held + 1, "one step")
    assert training.log[-1]["step"] == held + 1
    assert phase_of(watching) == "paused"
    go_on(watching)
    watching.until(lambda: training.log[-1]["step"] > held + 5, "the run goes on")
    watching.until(lambda: bool((watching.scene() != still).any()), "the picture moves again")


def test_an_edited_prompt_and_scale_are_in_force_from_the_next_step_and_logged(
    training: Training, watching: ViewerPage
) -> None:
    held = hold(watching, training)
    watching.write(LABELS["prompt"], "a red car")
    watching.write(LABELS["guidance.guidance_scale"], "5.5")
    watching.press(labels.APPLY)
    events = watching.until(lambda: [line for line in training.log if "event" in line] or None, "the log tells of it")
    assert events[-1]["step"] == held
    assert events[-1]["changed"]["prompt"] == "a red car"
    assert events[-1]["changed"]["guidance.guidance_scale"] == 5.5
    go_on(watching)
    steps_on(watching, 2)


def test_a_prompt_that_the_prior_does_not_know_is_refused_on_the_page_and_training_goes_on(
    training: Training, watching: ViewerPage
) -> None:
    before = len([line for line in training.log if "event" in line])
    watching.write(LABELS["prompt"], "a green dragon")
    watching.press(labels.APPLY)
    watching.until(lambda: '"dragon"' in watching.text(), "the page says why")
    steps_on(watching, 3)
    applied = [line for line in training.log if "event" in line and "changed" in line]
    assert not any("dragon" in json.dumps(line["changed"]) for line in applied[before:])


def test_the_render_picture_follows_the_run_in_every_mode(training: Training, watching: ViewerPage) -> None:
    watching.choose(labels.PICTURE, "render")
    watching.until(lambda: "what training sees" in watching.text(), "the page says which picture it is")
    for mode in labels.MODES:
        watching.choose(labels.MODE, mode)
        # A grey or coloured object in the middle of something plain.
        watching.until(lambda: watching.scene().std() > 3, f"{mode} is shown")
        assert labels.ERROR_TITLE not in watching.text(), mode
    steps_on(watching, 2)


def test_a_downloaded_ply_opens_and_has_the_count_that_is_shown(
    training: Training, watching: ViewerPage, tmp_path: Path
) -> None:
    hold(watching, training)
    watching.download(labels.DOWNLOAD_PLY, tmp_path / "splats.ply")
    vertex = PlyData.read(tmp_path / "splats.ply")["vertex"]

    def count_shown() -> int:
        shown = re.search(r"preview: ([\d,]+) of ([\d,]+) splats", watching.text())
        return int(shown[2].replace(",", "")) if shown else 0

    # The line about the preview is written a moment after the one about the step.
    watching.until(lambda: count_shown() == vertex.count > 0, f"the page shows {vertex.count} splats")
    assert {"x", "f_dc_0", "opacity", "scale_0", "rot_0"} <= {prop.name for prop in vertex.properties}
    go_on(watching)


def test_the_snapshot_opens_on_its_own(
    training: Training, watching: ViewerPage, browser: Browser, tmp_path: Path
) -> None:
    from headless_page import ViewerPage

    hold(watching, training)
    live = watching.still_scene()
    watching.download(labels.DOWNLOAD_HTML, tmp_path / "snapshot.html")
    go_on(watching)
    _, _, width, height = watching.box(watching.canvas)
    with browser.new_context(viewport={"width": round(width), "height": round(height)}, offline=True) as context:
        alone = ViewerPage(context.new_page())
        alone.page.goto((tmp_path / "snapshot.html").as_uri())
        alone.until(lambda: bool(object_mask(alone.scene()).mean() > 0.02), "splats appear without a server")
        picture = alone.still_scene()
        assert alone.faults == []
    masks = object_mask(live), object_mask(picture)
    # The same splats from the same start; only the background that the page paints is missing.
    assert (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() > 0.9


def test_a_second_client_comes_and_goes_without_a_trace(
    training: Training, watching: ViewerPage, browser: Browser
) -> None:
    from headless_page import ViewerPage

    with browser.new_context(viewport={"width": 400, "height": 300}) as context:
        other = ViewerPage(context.new_page())
        other.open(training.server.address)
        other.choose(labels.PICTURE, "render")
        other.until(lambda: "what training sees" in other.text(), "the other client has its own picture")
        assert "preview by your browser" in watching.text()
    steps_on(watching, 3)
    assert labels.ERROR_TITLE not in watching.text()


def test_stop_and_save_ends_the_run_and_the_page_says_so_and_stays(training: Training, watching: ViewerPage) -> None:
    watching.press(labels.STOP_AND_SAVE)
    watching.until(lambda: labels.ENDED_TITLE in watching.text(), "the page says that the server has ended")
    training.server.process.wait(600)
    address = urlparse(training.server.address)

    def is_closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((address.hostname, address.port)) != 0

    # Another program may take it for a while.
    watching.until(is_closed, "the port is closed")
    assert training.folder.splats.exists()
    assert training.folder.summary.exists()
    assert "Traceback" not in training.server.said
    # What was last seen is still there to look at.
    assert object_mask(watching.scene()).mean() > 0.01
    watching.until(lambda: "training has ended" in watching.text(), "the status line says so too")

"""A run that trains under its viewer, with browsers that speak viser's protocol."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_sockets import listening_addresses, needs_proc
from run_log import read_events

from sdi_gs.cameras import CameraBatch
from sdi_gs.contracts import RenderOutput, Representation
from sdi_gs.errors import NonFiniteError
from sdi_gs.representations.gaussians import Gaussians
from sdi_gs.splats.ply import read_splat_ply
from sdi_gs.training.trainer import Trainer
from sdi_gs.viewer import labels
from sdi_gs.viewer.render_worker import LOGGER
from sdi_gs.viewer.steering import LABELS

PATIENCE = 300.0
Browse = Callable[..., Any]
Wait = Callable[..., Any]


def gaussians_of(trainer: Trainer) -> Gaussians:
    assert isinstance(trainer.scene.representation, Gaussians)
    return trainer.scene.representation


def holds(live_run: Any, wait_until: Wait) -> int:
    """Wait until the run stands still, and say where."""
    wait_until(lambda: live_run.viewer.status.phase == "paused")
    step = live_run.trainer.step
    time.sleep(0.3)
    assert live_run.trainer.step == step
    return step


@pytest.fixture
def watched(live_run: Any, browsers: Browse, wait_until: Wait) -> Any:
    """A browser at a run that trains; it shows splats already."""
    live_run.start()
    browser = browsers(live_run.port)
    wait_until(lambda: browser.of_kind("GaussianSplatsMessage"))
    wait_until(lambda: live_run.trainer.step >= 2)
    return browser


def test_without_a_client_no_snapshot_is_taken_after_the_first(
    live_run: Any, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    snapshot = live_run.viewer._snapshot
    monkeypatch.setattr(live_run.viewer, "_snapshot", lambda: taken.append(1) or snapshot())
    live_run.start()
    wait_until(lambda: live_run.trainer.step >= 20)
    assert taken == []


def test_a_client_sees_the_start_before_the_first_step(live_run: Any, browsers: Browse, wait_until: Wait) -> None:
    browser = browsers(live_run.port)
    [message] = wait_until(lambda: browser.of_kind("GaussianSplatsMessage"))
    assert message["name"] == labels.SPLATS_NODE
    assert live_run.trainer.step == 0
    # 32 bytes per splat.
    assert 32 * 60 in message["_sizes"]


@pytest.mark.slow
def test_splats_follow_the_run(live_run: Any, watched: Any, wait_until: Wait) -> None:
    def updates() -> int:
        return len(watched.of_kind("SceneNodeUpdateMessage"))

    wait_until(lambda: updates() >= 2)
    # Late comers are replayed the last one only.
    kept = live_run.viewer.server._websock_server._broadcast_buffer.message_from_id
    buffered, before = len(kept), updates()
    wait_until(lambda: updates() >= before + 5)
    assert len(kept) <= buffered + 5


def test_a_new_count_adds_the_node_anew(live_run: Any, watched: Any, wait_until: Wait) -> None:
    watched.press(labels.PAUSE)
    holds(live_run, wait_until)
    added = len(watched.of_kind("GaussianSplatsMessage"))
    gaussians = gaussians_of(live_run.trainer)
    with torch.no_grad():
        gaussians.params["opacities"][:5] = -9.0
    watched.press(labels.STEP_ONCE)
    wait_until(lambda: len(watched.of_kind("GaussianSplatsMessage")) > added)
    assert 32 * 55 in watched.of_kind("GaussianSplatsMessage")[-1]["_sizes"]


def test_pause_step_and_resume(live_run: Any, watched: Any, wait_until: Wait) -> None:
    watched.press(labels.PAUSE)
    step = holds(live_run, wait_until)
    watched.press(labels.STEP_ONCE)
    wait_until(lambda: live_run.trainer.step == step + 1)
    assert holds(live_run, wait_until) == step + 1
    watched.press(labels.RESUME)
    wait_until(lambda: live_run.trainer.step > step + 3)
    assert live_run.viewer.status.phase == "training"


def test_a_paused_run_can_be_interrupted(live_run: Any, watched: Any, wait_until: Wait) -> None:
    watched.press(labels.PAUSE)
    holds(live_run, wait_until)
    live_run.stop()
    assert not live_run.is_training


def test_stop_and_save_ends_the_training(live_run: Any, watched: Any, wait_until: Wait) -> None:
    watched.press(labels.PAUSE)
    holds(live_run, wait_until)
    watched.press(labels.STOP_AND_SAVE)
    wait_until(lambda: not live_run.is_training)
    assert live_run.viewer.stop_requested


def test_settings_take_effect_at_the_next_step_and_reach_the_log(live_run: Any, watched: Any, wait_until: Wait) -> None:
    watched.press(labels.PAUSE)
    step = holds(live_run, wait_until)
    watched.set_value(LABELS["prompt"], "a red car")
    watched.set_value(LABELS["guidance.guidance_scale"], 1e9)
    watched.set_value(LABELS["views_per_step"], 2)
    watched.press(labels.APPLY)
    [event] = wait_until(lambda: read_events(live_run.folder))
    assert event == {
        "event": "settings",
        "step": step,
        "changed": {"prompt": "a red car", "views_per_step": 2, "guidance.guidance_scale": 1000.0},
    }
    assert live_run.trainer.config.prompt == "a red car"
    # The page shows what is in force, not what was entered.
    wait_until(lambda: watched.value_of(LABELS["guidance.guidance_scale"]) == 1000.0)
    watched.press(labels.RESUME)
    wait_until(lambda: live_run.trainer.step > step)
    assert len(live_run.trainer.last_views.rgb) == 2


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        (LABELS["prompt"], "a purple dragon", "dragon"),
        (LABELS["prompt"], "", "the prompt is empty"),
        (LABELS["guidance.t_min"], 0.99, "t_min"),
    ],
)
def test_what_cannot_be_is_rejected_and_training_goes_on(
    live_run: Any, watched: Any, wait_until: Wait, label: str, value: Any, says: str
) -> None:
    before, shown = live_run.trainer.config, watched.value_of(label)
    watched.set_value(label, value)
    watched.press(labels.APPLY)
    [notice] = wait_until(lambda: watched.of_kind("NotificationShowMessage"))
    assert notice["props"]["title"] == labels.REJECTED_TITLE
    assert says in notice["props"]["body"]
    assert live_run.trainer.config == before
    wait_until(lambda: watched.value_of(label) == shown)
    step = live_run.trainer.step
    wait_until(lambda: live_run.trainer.step > step)
    assert read_events(live_run.folder) == []


def visibility(browser: Any) -> list[bool]:
    """Whether a client was told to show all nodes or none."""
    return [m["visible"] for m in browser.of_kind("SetSceneNodeVisibilityMessage") if not m["name"]]


def test_the_render_view_hides_the_splats_for_its_own_client_only(
    live_run: Any, watched: Any, browsers: Browse, wait_until: Wait
) -> None:
    other = browsers(live_run.port)
    wait_until(lambda: other.of_kind("GaussianSplatsMessage"))
    watched.set_value(labels.PICTURE, "render")
    wait_until(lambda: visibility(watched) == [False])
    wait_until(lambda: [m for m in watched.of_kind("BackgroundImageMessage") if m["format"] == "jpeg"])
    assert visibility(other) == []
    assert all(m["format"] != "jpeg" for m in other.of_kind("BackgroundImageMessage"))
    assert labels.RENDER_NOTE in watched.texts()
    assert labels.RENDER_NOTE not in other.texts()
    watched.set_value(labels.PICTURE, "splats")
    wait_until(lambda: visibility(watched) == [False, True])
    wait_until(lambda: watched.of_kind("BackgroundImageMessage")[-1]["format"] == "png")


def test_of_a_burst_of_cameras_only_the_last_is_rendered_for_sure(
    live_run: Any, watched: Any, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdi_gs.viewer import render_worker

    watched.press(labels.PAUSE)
    holds(live_run, wait_until)
    rendered: list[float] = []
    render, all_came = render_worker.render_picture, threading.Event()

    def slowly(representation: Any, pose: Any, **options: Any) -> np.ndarray:
        rendered.append(pose.world_from_camera[0][3])
        all_came.wait(PATIENCE)
        return render(representation, pose, **options)

    monkeypatch.setattr(render_worker, "render_picture", slowly)
    watched.set_value(labels.PICTURE, "render")
    wait_until(lambda: rendered)
    for number in range(100):
        watched.look_from((2.0 + 0.01 * number, 0.0, 0.0))
    [client] = live_run.viewer.server.get_clients().values()
    wait_until(lambda: client.camera.position[0] == pytest.approx(2.99))
    all_came.set()
    wait_until(lambda: rendered[-1] == pytest.approx(2.99))
    # Beside the one under way, the last: while it moves, and at rest.
    assert len(rendered) <= 3


@pytest.mark.parametrize("mode", labels.MODES)
def test_every_mode_sends_a_picture(live_run: Any, watched: Any, wait_until: Wait, mode: str) -> None:
    watched.press(labels.PAUSE)
    holds(live_run, wait_until)
    [view] = live_run.viewer.worker._views.values()
    watched.set_value(labels.MODE, mode)
    wait_until(lambda: view.mode == mode)
    watched.set_value(labels.PICTURE, "render")
    wait_until(lambda: [m for m in watched.of_kind("BackgroundImageMessage") if m["format"] == "jpeg"])
    assert watched.of_kind("NotificationShowMessage") == []


def test_a_failing_render_is_told_and_logged_and_training_goes_on(
    live_run: Any, watched: Any, wait_until: Wait, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from sdi_gs.viewer import page_server, render_worker

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of paint")

    monkeypatch.setattr(render_worker, "render_picture", broken)
    # However long the ten steps below take.
    monkeypatch.setattr(page_server, "SECONDS_BETWEEN_ERRORS", 1e9)
    with caplog.at_level("WARNING", logger=LOGGER.name):
        watched.set_value(labels.PICTURE, "render")
        [notice] = wait_until(lambda: watched.of_kind("NotificationShowMessage"))
        events = wait_until(lambda: read_events(live_run.folder))
    assert notice["props"]["title"] == labels.ERROR_TITLE
    assert "out of paint" in notice["props"]["body"]
    assert events[0]["event"] == "viewer-error"
    assert "out of paint" in events[0]["message"]
    assert "out of paint" in caplog.text
    # Ten more steps fail the same way and are not told again.
    step = live_run.trainer.step
    wait_until(lambda: live_run.trainer.step > step + 10)
    assert len(watched.of_kind("NotificationShowMessage")) == 1
    monkeypatch.undo()
    wait_until(lambda: [m for m in watched.of_kind("BackgroundImageMessage") if m["format"] == "jpeg"])


def test_a_render_that_hangs_does_not_hold_training(
    live_run: Any, watched: Any, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdi_gs.viewer import render_worker

    hanging, let_go = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> np.ndarray:
        hanging.set()
        let_go.wait(PATIENCE)
        return np.zeros((2, 3, 3), np.uint8)

    monkeypatch.setattr(render_worker, "render_picture", hang)
    watched.set_value(labels.PICTURE, "render")
    assert hanging.wait(PATIENCE)
    step = live_run.trainer.step
    wait_until(lambda: live_run.trainer.step > step + 10)
    let_go.set()


def test_snapshots_are_not_changed_by_later_steps(live_run: Any, watched: Any, wait_until: Wait) -> None:
    snapshot = live_run.viewer.worker.current
    copies = {name: value.clone() for name, value in snapshot.representation.params.items()}
    wait_until(lambda: live_run.trainer.step > snapshot.step + 5)
    for name, value in snapshot.representation.params.items():
        assert torch.equal(value, copies[name]), name
    assert not torch.equal(gaussians_of(live_run.trainer).params["means"], copies["means"])


@pytest.mark.parametrize("pace", ["caught-up", "behind"])
def test_the_downloaded_file_holds_the_step_that_is_shown_as_paused(
    live_run: Any, watched: Any, wait_until: Wait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pace: str
) -> None:
    if pace == "behind":
        # From now on the page follows the run no more, as on a machine that has no time for it.
        monkeypatch.setattr("sdi_gs.viewer.render_worker.SECONDS_BETWEEN_SNAPSHOTS", 1e9)
        # A look that it began before is over when it has done this.
        live_run.viewer.worker.submit(lambda: None).result(PATIENCE)
    watched.press(labels.PAUSE)
    step = holds(live_run, wait_until)
    if pace == "caught-up":
        wait_until(lambda: live_run.viewer.worker.current.step == step)
    else:
        assert live_run.viewer.worker.current.step < step
    sent: list[tuple[str, bytes]] = []
    [client] = live_run.viewer.server.get_clients().values()
    monkeypatch.setattr(client, "send_file_download", lambda name, content, **_: sent.append((name, content)))
    watched.press(labels.DOWNLOAD_PLY)
    wait_until(lambda: sent)
    name, content = sent[0]
    assert name == f"splats_step_{step:06d}.ply"
    (tmp_path / name).write_bytes(content)
    cloud = read_splat_ply(tmp_path / name)
    torch.testing.assert_close(cloud.means, gaussians_of(live_run.trainer).params["means"].detach(), atol=1e-6, rtol=0)
    assert f"steps {step}".encode() in content
    assert len(cloud) == 60


def test_the_html_snapshot_needs_nothing_else(
    live_run: Any, watched: Any, wait_until: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, bytes]] = []
    [client] = live_run.viewer.server.get_clients().values()
    monkeypatch.setattr(client, "send_file_download", lambda name, content, **_: sent.append((name, content)))
    watched.press(labels.DOWNLOAD_HTML)
    wait_until(lambda: sent)
    name, content = sent[0]
    assert name.endswith(".html")
    assert b"__VISER_EMBED_DATA__" in content
    assert b'src="http' not in content


def test_cameras_of_training_can_be_shown_and_hidden(live_run: Any, watched: Any, wait_until: Wait) -> None:
    watched.press(labels.PAUSE)
    holds(live_run, wait_until)
    watched.set_value(labels.SHOW_CAMERAS, True)
    [frustum] = wait_until(lambda: watched.of_kind("CameraFrustumMessage"))
    assert frustum["name"] == f"{labels.CAMERAS_NODE}/0"
    watched.set_value(labels.SHOW_CAMERAS, False)
    wait_until(lambda: watched.of_kind("RemoveSceneNodeMessage"))


def test_the_crop_box_and_the_splat_scale_reach_the_node(live_run: Any, watched: Any, wait_until: Wait) -> None:
    watched.press(labels.PAUSE)
    holds(live_run, wait_until)
    watched.set_value(labels.CROP_MAX, (0.0, 10.0, 10.0))
    watched.set_value(labels.CROP, True)
    wait_until(lambda: "outside the box" in watched.texts())
    means = gaussians_of(live_run.trainer).params["means"]
    inside = int((means[:, 0] <= 0.0).sum())
    wait_until(lambda: 32 * inside in watched.of_kind("GaussianSplatsMessage")[-1]["_sizes"])


def test_the_share_is_held_to_its_range(live_run: Any, watched: Any, wait_until: Wait) -> None:
    watched.set_value(labels.TRAINING_SHARE, 0.9)
    wait_until(lambda: live_run.viewer.worker.options.share == 0.9)
    watched.set_value(labels.TRAINING_SHARE, -3.0)
    wait_until(lambda: live_run.viewer.worker.options.share == 0.3)


def test_camera_buttons_move_the_client_that_pressed(
    live_run: Any, watched: Any, browsers: Browse, wait_until: Wait
) -> None:
    other = browsers(live_run.port)
    wait_until(lambda: other.of_kind("GaussianSplatsMessage"))
    watched.set_value(labels.LOOK_FROM, "back")

    def moves(browser: Any) -> list[Any]:
        return [m["position"] for m in browser.of_kind("SetCameraPositionMessage") if not m["initial"]]

    [position] = wait_until(lambda: moves(watched))
    distance = live_run.trainer.config.cameras.distance[0]
    np.testing.assert_allclose(position, [-distance, 0.0, 0.0], atol=1e-5)
    assert moves(other) == []


@pytest.mark.slow
def test_fifty_clients_come_and_go(live_run: Any, watched: Any, browsers: Browse, wait_until: Wait) -> None:
    viewer = live_run.viewer

    def comers_and_goers() -> None:
        crowd = [browsers(live_run.port) for _ in range(10)]
        for index, browser in enumerate(crowd):
            wait_until(lambda browser=browser: browser.of_kind("GuiDropdownMessage"))
            if index % 2:
                browser.set_value(labels.PICTURE, "render")
            # Half of them leave without a word, in the middle of whatever is being sent.
            if index % 3:
                browser.connection.socket.shutdown(socket.SHUT_RDWR)
            else:
                browser.close()
        wait_until(lambda: len(viewer.server.get_clients()) == 1)
        wait_until(lambda: len(viewer.worker._views) == 1)

    def buffered() -> int:
        return len(viewer.server._websock_server._broadcast_buffer.message_from_id)

    comers_and_goers()
    messages, threads = buffered(), threading.active_count()
    for _ in range(4):
        comers_and_goers()
    step = live_run.trainer.step
    wait_until(lambda: live_run.trainer.step > step + 5)
    # What late comers are replayed has not grown, and nobody's thread is left.
    assert buffered() <= messages + 5
    assert threading.active_count() <= threads + 40
    assert viewer.server._websock_server._client_state_from_id.keys() == viewer.server.get_clients().keys()
    assert read_events(live_run.folder) == []


@needs_proc
def test_whoever_is_there_is_told_of_the_end_and_the_port_closes(live_run: Any, watched: Any, wait_until: Wait) -> None:
    live_run.stop()
    live_run.viewer.end_run("training has ended; the run is in outputs/x-1")
    wait_until(lambda: watched.is_gone)
    [notice] = watched.of_kind("NotificationShowMessage")
    assert notice["props"]["title"] == labels.ENDED_TITLE
    assert notice["props"]["body"] == "training has ended; the run is in outputs/x-1"
    assert not listening_addresses(live_run.port)


def test_an_error_of_training_reaches_the_page(live_run: Any, watched: Any, wait_until: Wait) -> None:
    live_run.stop()
    with pytest.raises(NonFiniteError):
        try:
            raise NonFiniteError("step 3: non-finite loss")
        except NonFiniteError as error:
            live_run.viewer.__exit__(NonFiniteError, error, None)
            raise
    wait_until(lambda: watched.is_gone)
    assert "training has stopped (NonFiniteError); what was saved is in" in watched.texts()


def test_a_broken_snapshot_taker_is_no_silent_loss(live_run: Any, watched: Any, wait_until: Wait) -> None:
    class NoDepth(Representation):
        def render(self, cameras: CameraBatch, background: torch.Tensor, *, with_depth: bool = False) -> RenderOutput:
            shape = (len(cameras), cameras.height, cameras.width)
            return RenderOutput(rgb=torch.zeros(*shape, 3), alpha=torch.ones(*shape, 1))

    live_run.trainer.scene.representation.detached_copy = NoDepth
    watched.set_value(labels.MODE, "depth")
    watched.set_value(labels.PICTURE, "render")
    wait_until(lambda: "the representation gave no depth" in watched.texts())
    step = live_run.trainer.step
    wait_until(lambda: live_run.trainer.step > step + 3)


def test_a_run_of_four_views_is_shown_to_its_end(live_four_views: Any, browsers: Browse, wait_until: Wait) -> None:
    live_four_views.start()
    browser = browsers(live_four_views.port)
    wait_until(lambda: browser.of_kind("GaussianSplatsMessage"))
    wait_until(lambda: not live_four_views.is_training)
    assert live_four_views.trainer.step == 5
    views = live_four_views.trainer.last_views
    assert (len(views.cameras), len(views.target)) == (4, 4)
    wait_until(lambda: "step 5 of 5" in browser.texts())

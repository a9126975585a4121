"""The panel that all clients share: the run's state and controls, the scene's options, plots and downloads.

Callbacks only post commands and set options. Nothing that a client sends is used as a path or executed, and every
number is clamped to its range here, since a client may send anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import viser
from viser import uplot

from sdi_gs.settings.bounds import Range
from sdi_gs.settings.run import RunConfig
from sdi_gs.viewer import labels
from sdi_gs.viewer.bridge import Bridge, ChangeSettings, Pause, Resume, Status, StepOnce, StopAndSave, TrainOn
from sdi_gs.viewer.history import History
from sdi_gs.viewer.render_worker import DEFAULT_SHARE, SHARES, RenderWorker
from sdi_gs.viewer.splat_stream import SplatArrays
from sdi_gs.viewer.standpoint import Standpoint
from sdi_gs.viewer.steering import NUMBER_CONTROLS, TEXT_CONTROLS, shown_values, wanted_changes

SPLAT_SCALES = (0.05, 2.0)
PLOT_HEIGHT = 120
MORE_STEPS, DEFAULT_MORE = Range(1, 1_000_000), 100
"""Steps that a run can be trained on for at a time."""
MARKUP = "\\`*_{}[]()<>#+-!|&~$:"
"""Characters with a meaning in Markdown."""
_PLOTS = (labels.PLOT_LOSS, labels.PLOT_TIMESTEP, labels.PLOT_COUNT, labels.PLOT_RATE)


class Page:
    """The shared panel of a server; the worker calls ``show``, and whoever ends the server ``show_last``."""

    def __init__(self, server: viser.ViserServer, bridge: Bridge, *, heading: str, standpoint: Standpoint) -> None:
        self._server, self._bridge = server, bridge
        gui = server.gui
        gui.configure_theme(show_logo=False, show_share_button=False, control_width="medium")
        gui.set_panel_label(labels.TITLE)
        # Beside the canvas, since a render fills the canvas and the panel would hide part of it.
        gui.main_panel.dock_right()
        self.heading = heading
        self._status = gui.add_markdown(plain(heading), order=0)
        self.view_folder = gui.add_folder(labels.FOLDER_VIEW, order=1)
        self._standpoint = standpoint
        self._inputs: dict[str, Any] = {}
        self._plots: list[viser.GuiUplotHandle] = []
        self._config: RunConfig | None = None
        self._plotted = 0
        self._training: list[Any] = []
        """Controls that act on a run that trains."""
        self._after_end: list[Any] = []
        """Controls that act on a run that has ended."""
        self._end_note: viser.GuiMarkdownHandle | None = None

    # Building.

    def add_training(self, worker: RenderWorker, config: RunConfig, *, has_splats: bool) -> None:
        """Add the controls of a training run."""
        gui, post = self._server.gui, self._bridge.post
        with gui.add_folder(labels.FOLDER_TRAINING, order=2):
            for label, command in (
                (labels.PAUSE, Pause()),
                (labels.RESUME, Resume()),
                (labels.STEP_ONCE, StepOnce()),
                (labels.STOP_AND_SAVE, StopAndSave()),
            ):
                button = gui.add_button(label)
                button.on_click(_posts(post, command))
                self._training.append(button)
            self._end_note = gui.add_markdown("", visible=False)
            more = gui.add_number(
                labels.MORE_STEPS, DEFAULT_MORE, min=MORE_STEPS.low, max=MORE_STEPS.high, step=1, visible=False
            )
            go_on = gui.add_button(labels.TRAIN_ON, visible=False)
            self._after_end = [more, go_on]

            @go_on.on_click
            async def _(_: Any) -> None:
                post(TrainOn(int(_clamped(more.value, MORE_STEPS.low, MORE_STEPS.high))))

            share = gui.add_slider(
                labels.TRAINING_SHARE,
                SHARES[0],
                SHARES[1],
                0.05,
                DEFAULT_SHARE,
                hint="Share of its speed that training keeps while you orbit",
            )

            self._training.append(share)

            @share.on_update
            async def _(_: Any) -> None:
                worker.set_options(share=_clamped(share.value, *SHARES))

        with gui.add_folder(labels.FOLDER_STEERING, order=3):
            self._add_steering(config)
        with gui.add_folder(labels.FOLDER_PLOTS, order=5, expand_by_default=False):
            for label in _PLOTS:
                data = (np.zeros(1), np.zeros(1))
                series = (uplot.Series(label="step"), uplot.Series(label=label, stroke="#2563eb", width=1.5))
                scales = {"x": uplot.Scale(time=False), "y": uplot.Scale()}
                applies = label != labels.PLOT_COUNT or has_splats
                self._plots.append(
                    gui.add_uplot(data, series, title=label, scales=scales, height=PLOT_HEIGHT, visible=applies)
                )

    def _add_steering(self, config: RunConfig) -> None:
        gui, shown = self._server.gui, shown_values(config)
        self._config = config
        for text in TEXT_CONTROLS:
            setting = text.setting
            self._inputs[setting.key] = gui.add_text(setting.label, shown[setting.key])
        for number in NUMBER_CONTROLS:
            setting, bounds = number.setting, number.bounds
            self._inputs[setting.key] = gui.add_number(
                setting.label,
                shown[setting.key],
                min=bounds.low,
                max=bounds.high,
                step=setting.step,
                hint=setting.hint,
            )

        apply = gui.add_button(labels.APPLY)
        self._training += [*self._inputs.values(), apply]

        @apply.on_click
        async def _(_: Any) -> None:
            if self._config is None:
                return
            changes = wanted_changes(self._config, {key: handle.value for key, handle in self._inputs.items()})
            if changes:
                self._bridge.post(ChangeSettings(changes))
            else:
                self.show_settings(self._config)

    def add_scene(self, worker: RenderWorker, *, with_cameras: bool) -> None:
        """Add the options of the splats."""
        gui, middle, reach = self._server.gui, self._standpoint.middle, self._standpoint.extent
        with gui.add_folder(labels.FOLDER_SCENE, order=4, expand_by_default=False):
            scale = gui.add_slider(labels.SPLAT_SCALE, SPLAT_SCALES[0], SPLAT_SCALES[1], 0.05, 1.0)
            crop = gui.add_checkbox(labels.CROP, False)
            step = 0.01 * reach
            low, high = (
                gui.add_vector3(label, _corner([part + side * reach for part in middle]), step=step)
                for label, side in ((labels.CROP_MIN, -1.0), (labels.CROP_MAX, 1.0))
            )
            cameras = gui.add_checkbox(labels.SHOW_CAMERAS, False, visible=with_cameras)

            async def options(_: Any) -> None:
                box = (_corner(low.value), _corner(high.value)) if crop.value else None
                stream = replace(worker.options.stream, splat_scale=_clamped(scale.value, *SPLAT_SCALES), crop=box)
                worker.set_options(stream=stream)

            for handle in (scale, crop, low, high):
                handle.on_update(options)

            @cameras.on_update
            async def _(_: Any) -> None:
                worker.set_options(show_cameras=bool(cameras.value))

    def add_downloads(self, actions: dict[str, Callable[[viser.ClientHandle], None]]) -> None:
        """Add a button per action; the action is called with the client that pressed it."""
        gui = self._server.gui
        with gui.add_folder(labels.FOLDER_TAKE_AWAY, order=6):
            for label, action in actions.items():
                button = gui.add_button(label)

                @button.on_click
                def _(event: viser.GuiEvent[Any], action: Callable[[viser.ClientHandle], None] = action) -> None:
                    if event.client is not None:
                        action(event.client)

    # Showing.

    def show(self, status: Status, history: History | None, arrays: SplatArrays | None) -> None:
        """Update the status line, the note about the preview, and the plots."""
        content = f"{plain(self.heading)}\n\n{status_line(status)}"
        note = preview_note(arrays)
        self._status.content = f"{content}\n\n{note}" if note else content
        if history is None or not self._plots:
            return
        columns = history.columns()
        if columns.shape[1] and columns[0, -1] != self._plotted:
            self._plotted = int(columns[0, -1])
            for plot, column in zip(self._plots, columns[1:], strict=True):
                plot.data = (columns[0], column)

    def show_settings(self, config: RunConfig) -> None:
        """Show a config's values in the controls."""
        self._config = config
        for key, value in shown_values(config).items():
            if self._inputs and self._inputs[key].value != value:
                self._inputs[key].value = value

    def show_end(self, *, can_go_on: bool) -> None:
        """Turn the controls of training off and say why; offer more steps where the program is still there for them."""
        self._turn(off=True)
        if self._end_note is not None:
            self._end_note.content = f"{labels.ENDED_NOTE} {labels.TRAIN_ON_NOTE if can_go_on else ''}"
        for control in self._after_end:
            control.visible = can_go_on

    def show_training(self) -> None:
        """Turn the controls of training on again."""
        self._turn(off=False)
        for control in self._after_end:
            control.visible = False

    def _turn(self, *, off: bool) -> None:
        for control in self._training:
            control.disabled = off
        if self._end_note is not None:
            self._end_note.visible = off

    def show_last(self, text: str) -> None:
        """Show a line that stays on the page after the server has stopped."""
        self._status.content = f"{plain(self.heading)}\n\n**{plain(text)}**"

    def notify(self, title: str, body: str, *, seconds: float | None = None) -> None:
        """Show a notification to all clients."""
        for client in self._server.get_clients().values():
            client.add_notification(title, body, auto_close_seconds=seconds)


def plain(text: str) -> str:
    """Escape text for Markdown."""
    return "".join(f"\\{letter}" if letter in MARKUP else letter for letter in text)


def status_line(status: Status) -> str:
    """Return the status line; it begins with the phase and the step."""
    if status.phase == "viewing":
        return status.contents
    parts = [f"**{status.phase}**", f"step {status.step} of {status.num_steps}"]
    if status.num_rounds is not None and status.num_rounds < status.step:
        parts.append(f"round {status.num_rounds}")
    if status.timestep is not None:
        parts.append(f"t {status.timestep}")
    if status.loss is not None:
        parts.append(f"loss {status.loss:.4f}")
    if status.contents:
        parts.append(status.contents)
    if status.steps_per_second is not None:
        parts.append(f"{status.steps_per_second:.2f} steps/s")
    return " · ".join(parts)


def preview_note(arrays: SplatArrays | None) -> str:
    """Return how many splats the browser shows, and why not all."""
    if arrays is None:
        return ""
    reasons = [
        f"{count:,} {why}"
        for count, why in (
            (arrays.thinned, "thinned out, of least contribution"),
            (arrays.cropped, "outside the box"),
            (arrays.outliers, "too far away"),
        )
        if count
    ]
    left_out = f" (without {', '.join(reasons)})" if reasons else ""
    return f"preview: {len(arrays):,} of {arrays.presentable:,} splats{left_out}"


def _posts(post: Callable[[Any], bool], command: Any) -> Callable[[Any], Any]:
    async def callback(_: Any) -> None:
        post(command)

    return callback


def _clamped(value: Any, low: float, high: float) -> float:
    """Clamp a number; NaN becomes the low end."""
    number = float(value)
    return low if math.isnan(number) else min(max(number, low), high)


def _corner(value: Any) -> tuple[float, float, float]:
    x, y, z = (_clamped(part, -1e6, 1e6) for part in value)
    return (x, y, z)

"""The live viewer of a training run, and the page of a finished scene."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, assert_never

import torch

from sdi_gs.contracts import Representation, StepReport
from sdi_gs.errors import UserError
from sdi_gs.pictures.framing import Framing, training_framing
from sdi_gs.runs.events import Event, Saving, StepDone
from sdi_gs.runs.folder import RunFolder
from sdi_gs.runs.loading import SavedScene
from sdi_gs.runs.provenance import origin_of
from sdi_gs.runs.saving import change_settings
from sdi_gs.runs.showing import framing_of
from sdi_gs.settings.cameras import LookConfig
from sdi_gs.settings.tree import with_values
from sdi_gs.training.trainer import Trainer
from sdi_gs.viewer import labels
from sdi_gs.viewer.bridge import (
    ChangeSettings,
    Command,
    Pause,
    Phase,
    Resume,
    Snapshot,
    Status,
    StepOnce,
    StopAndSave,
    TrainOn,
)
from sdi_gs.viewer.labels import MODES
from sdi_gs.viewer.page_server import PageContent, PageServer
from sdi_gs.viewer.standpoint import standpoint_of

PAUSE_POLL = 0.2
"""Seconds between checks for Ctrl-C while the run is paused."""
MAX_ERRORS_KEPT = 100
"""Errors kept for the run's log between two steps."""


class LiveViewer(PageServer):
    """The page of a run that trains; the training thread calls ``observe`` with the run's events.

    A context manager: entering it serves the page, leaving it closes the port. ``interrupted`` returns whether Ctrl-C
    was pressed, which also ends a pause. ``origins`` are the names of sites, such as a proxy's, whose pages may use it.
    Raises UserError where the host is not an address of this machine, no port is free or an origin is no name.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        origins: Sequence[str] = (),
        interrupted: Callable[[], bool] = lambda: False,
    ) -> None:
        config, shown = trainer.config, trainer.scene.representation
        content = PageContent(
            heading=f"“{config.prompt}”",
            name="splats",
            comments=lambda step: origin_of(trainer.config, step).lines(),
            standpoint=standpoint_of(training_framing(config.cameras)),
            modes=MODES,
            render_note=labels.RENDER_NOTE,
            has_splats=shown.splats() is not None,
            prior=trainer.prior,
        )
        super().__init__(content, host=host, port=port, origins=origins, device=trainer.device)
        self._trainer, self._folder, self._interrupted = trainer, folder, interrupted
        self._paused = False
        self._steps_allowed = 0
        self._stop_requested = False
        self._errors: list[str] = []
        self._last_step_at: float | None = None
        self._seconds: float | None = None
        """Of a step, on average over the latest."""
        self._report: StepReport | None = None
        self._published_step: int | None = None
        self._ended = False
        self.page.add_training(self.worker, config, has_splats=content.has_splats)
        if content.has_splats:
            self.page.add_scene(self.worker, with_cameras=True)

    def __enter__(self) -> LiveViewer:
        self.serve()
        self._show("training")
        self.bridge.publish(self._snapshot, always=True)
        self._published_step = self._trainer.step
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        if error is None:
            self.end_run(f"training has ended; the run is in {self._folder.path}")
        else:
            self.end_run(f"training has stopped ({type(error).__name__}); what was saved is in {self._folder.path}")

    @property
    def stop_requested(self) -> bool:
        """Whether a client pressed the button that stops and saves."""
        return self._stop_requested

    def observe(self, event: Event) -> None:
        """After a step, apply queued commands, publish a snapshot and block while paused; show when files are written.

        The cost without clients is negligible.
        """
        match event:
            case StepDone():
                self._after_step(event.report)
            case Saving():
                self._show("saving")
                self.bridge.publish(self._snapshot, always=True)
            case _:
                pass

    def _after_step(self, report: StepReport) -> None:
        now = time.perf_counter()
        if self._last_step_at is not None:
            seconds = max(now - self._last_step_at, 1e-9)
            # A mean of seconds, because a mean of rates would hide the slow step of each round.
            self._seconds = seconds if self._seconds is None else 0.9 * self._seconds + 0.1 * seconds
        loss = sum(report.losses.values())
        self.history.add(report.step, loss, report.timestep, report.num_points, self._rate() or 0.0)
        self._report = report
        self._steps_allowed = max(self._steps_allowed - 1, 0)
        self._apply_commands()
        self._publish()
        self._log_errors()
        self._show("training")
        while self._is_held():
            # A paused page shows and downloads this step, so it replaces an older snapshot that was not taken.
            self._publish(always=True)
            self._show("paused")
            if self.bridge.wait_for_command(PAUSE_POLL):
                self._apply_commands()
                self._show("training")
        self._last_step_at = time.perf_counter()

    def end_run(self, message: str) -> None:
        """Show that the run is finished, with a last message, then close the port."""
        self._ended = True
        self._show("finished")
        self.page.show_end(can_go_on=False)
        self.end(message)
        self._log_errors()

    def keep_open(self, until: Callable[[], bool]) -> int:
        """Show the finished scene until ``until`` returns True or more steps are asked for; return their number."""
        self._show("finished")
        self.page.show_end(can_go_on=True)
        self.bridge.take_commands()
        more = 0
        while not more and not until():
            if self.bridge.wait_for_command(PAUSE_POLL):
                asked = [command.steps for command in self.bridge.take_commands() if isinstance(command, TrainOn)]
                more = max(asked, default=0)
        if more:
            self._paused, self._steps_allowed, self._stop_requested, self._last_step_at = False, 0, False, None
            self.page.show_training()
            self._show("training")
        return more

    def on_error(self, line: str) -> None:
        """Keep an error for the run's log, which only the training thread writes."""
        if len(self._errors) < MAX_ERRORS_KEPT:
            self._errors.append(line)

    def _rate(self) -> float | None:
        """Return the latest steps per second."""
        return None if self._seconds is None else 1.0 / self._seconds

    def _is_held(self) -> bool:
        return self._paused and not self._steps_allowed and not self._stop_requested and not self._interrupted()

    def _apply_commands(self) -> None:
        for command in self.bridge.take_commands():
            self._apply(command)

    def _apply(self, command: Command) -> None:
        match command:
            case Pause():
                self._paused, self._steps_allowed = True, 0
            case Resume():
                self._paused = False
            case StepOnce():
                self._paused = True
                self._steps_allowed += 1
            case StopAndSave():
                self._stop_requested = True
            case ChangeSettings(values):
                self._change_settings(values)
            case TrainOn():
                # It is a command for after the end.
                pass
            case _:
                assert_never(command)

    def _change_settings(self, values: Mapping[str, Any]) -> None:
        """Change settings of the run, or notify why they are refused; the page then shows those in force."""
        trainer = self._trainer
        try:
            changed = change_settings(trainer, self._folder, with_values(trainer.config, values))
        except UserError as error:
            self.page.notify(labels.REJECTED_TITLE, str(error))
        else:
            words = ", ".join(f"{key} = {after}" for key, (_, after) in changed.items())
            if words:
                self.page.notify(labels.APPLIED_TITLE, f"from step {trainer.step + 1} on: {words}", seconds=8.0)
        self.page.heading = f"“{trainer.config.prompt}”"
        self.page.show_settings(trainer.config)

    def _publish(self, *, always: bool = False) -> None:
        if self._published_step != self._trainer.step and self.bridge.publish(self._snapshot, always=always):
            self._published_step = self._trainer.step

    def _snapshot(self) -> Snapshot:
        trainer = self._trainer
        return Snapshot(
            step=trainer.step, representation=trainer.scene.representation.detached_copy(), views=trainer.last_views
        )

    def _show(self, phase: Phase) -> None:
        trainer, report = self._trainer, self._report
        self.set_status(
            Status(
                phase=phase,
                step=trainer.step,
                num_steps=trainer.config.total_steps,
                num_rounds=trainer.num_rounds,
                timestep=None if report is None else report.timestep,
                loss=None if report is None else sum(report.losses.values()),
                contents=contents(trainer.scene.representation, has_splats=self.content.has_splats),
                steps_per_second=self._rate(),
            )
        )

    def _log_errors(self) -> None:
        while self._errors:
            line = self._errors.pop(0)
            self._folder.append_step({"event": "viewer-error", "step": self._trainer.step, "message": line})


class FinishedViewer(PageServer):
    """A page on a scene of a finished run or of a file; a context manager as ``LiveViewer``.

    ``framing`` is where its cameras stand; None for the usual one.
    """

    def __init__(
        self,
        scene: SavedScene,
        framing: Framing | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        origins: Sequence[str] = (),
        device: torch.device,
    ) -> None:
        run, shown = scene.run, scene.representation
        title = scene.path.name if scene.prompt is None else f"“{scene.prompt}” ({scene.path})"
        content = PageContent(
            heading=title,
            name=scene.path.stem or "splats",
            comments=lambda step: [] if run is None else origin_of(run.config, step).lines(),
            standpoint=standpoint_of(framing_of(scene, LookConfig())[0] if framing is None else framing),
            modes=tuple(mode for mode in MODES if mode != "denoised target"),
            render_note=labels.VIEWING_RENDER_NOTE,
            has_splats=shown.splats() is not None,
        )
        super().__init__(content, host=host, port=port, origins=origins, device=device)
        if content.has_splats:
            self.page.add_scene(self.worker, with_cameras=False)
        self.set_status(Status(phase="viewing", contents=contents(shown, has_splats=content.has_splats)))
        step = run.step if run is not None else 0
        self.bridge.publish(lambda: Snapshot(step=step, representation=shown), always=True)

    def __enter__(self) -> FinishedViewer:
        self.serve()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("the viewer was closed; start it again with sdi-gs view")

    def serve_until(self, stopped: Callable[[], bool]) -> None:
        """Serve until ``stopped`` returns True."""
        while not stopped():
            time.sleep(PAUSE_POLL)


def contents(representation: Representation, *, has_splats: bool) -> str:
    """Return the description of a representation for the page's status line."""
    return f"{representation.num_points:,} Gaussians" if has_splats else f"{representation.describe()}, no splats"

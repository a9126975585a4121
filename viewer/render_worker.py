"""The viewer's worker thread: it renders, streams splats and updates the page, and never blocks training.

It works on snapshots, and on each client's latest camera only, so requests never queue up. Every job is charged to a
budget: jobs that a person waits for to the share that training leaves, all others to a small share of their own.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sdi_gs.contracts import DiffusionPrior
from sdi_gs.splats.splat_cloud import SplatCloud
from sdi_gs.viewer.bridge import Bridge, Snapshot
from sdi_gs.viewer.budget import Budget, shares
from sdi_gs.viewer.client_view import MOVING_SECONDS, ClientView, Shown
from sdi_gs.viewer.pictures import render_picture, target_picture
from sdi_gs.viewer.resolution import RenderSpeed, moving_seconds, rest_seconds
from sdi_gs.viewer.scene import Scene
from sdi_gs.viewer.splat_stream import SplatArrays, StreamOptions, splat_arrays

LOGGER = logging.getLogger("sdi_gs.viewer")

DEFAULT_SHARE = 0.7
SHARES = (0.3, 0.95)
"""Least share of its speed that training keeps while a client orbits; the ends of the page's slider."""
SECONDS_BETWEEN_SNAPSHOTS = 0.1
SECONDS_BETWEEN_STREAMS = 0.2
SECONDS_BETWEEN_PAGES = 0.5
LONGEST_WAIT = 0.5

Job = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """Values of the page's shared controls; page threads replace the whole object."""

    share: float = DEFAULT_SHARE
    stream: StreamOptions = StreamOptions()
    show_cameras: bool = False


class RenderWorker:
    """Works from ``start`` to ``stop``; ``report_error`` is called with where an error occurred and the error."""

    def __init__(
        self,
        bridge: Bridge,
        scene: Scene,
        *,
        device: torch.device,
        prior: DiffusionPrior | None,
        fill_page: Callable[[SplatArrays | None], None],
        report_error: Callable[[str, Exception], None],
        is_training: Callable[[], bool],
    ) -> None:
        self.options = PageOptions()
        self._bridge, self._scene = bridge, scene
        self._device, self._prior = device, prior
        self._fill_page, self._report_error, self._is_training = fill_page, report_error, is_training
        self._views: dict[int, ClientView] = {}
        self._submitted: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="viewer", daemon=True)
        now = time.monotonic()
        self._interactive, self._idle = (Budget(rate, now=now) for rate in shares(DEFAULT_SHARE))
        self._speeds: dict[bool, RenderSpeed] = {False: RenderSpeed(), True: RenderSpeed()}
        self._snapshot: Snapshot | None = None
        self._cloud: SplatCloud | None = None
        self._arrays: SplatArrays | None = None
        self._streamed: tuple[int, StreamOptions] | None = None
        self._cameras_of: int | None = None
        self._streamed_at = self._paged_at = self._taken_at = -math.inf

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the current job, cancel the submitted ones, and end the thread."""
        self._closed = True
        self._bridge.wake()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)
        with self._lock:
            submitted, self._submitted = self._submitted, []
        for _, future in submitted:
            future.cancel()

    def set_options(self, **changes: Any) -> None:
        """Change some of the page's options."""
        with self._lock:
            self.options = replace(self.options, **changes)
        self._bridge.wake()

    def add_client(self, view: ClientView) -> None:
        """Serve a client."""
        with self._lock:
            self._views[view.client.client_id] = view
        self._bridge.set_watchers(len(self._views))

    def remove_client(self, client_id: int) -> None:
        """Stop serving a client."""
        with self._lock:
            self._views.pop(client_id, None)
        self._bridge.set_watchers(len(self._views))

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Run a function in the worker's thread, between its jobs, on the latest snapshot."""
        future: Future[Any] = Future()
        with self._lock:
            self._submitted.append((work, future))
        self._bridge.wake()
        return future

    @property
    def current(self) -> Snapshot | None:
        """The snapshot being shown."""
        return self._snapshot

    def cloud(self) -> SplatCloud | None:
        """Return all splats being shown, on the CPU; None for a scene without. Worker's thread only."""
        snapshot = self._snapshot
        if self._cloud is None and snapshot is not None:
            splats = snapshot.representation.splats()
            self._cloud = None if splats is None else splats.cpu()
        return self._cloud

    def arrays(self) -> SplatArrays | None:
        """Return the splats as they are streamed. Worker's thread only."""
        cloud = self.cloud()
        return None if cloud is None else splat_arrays(cloud, self.options.stream)

    def _run(self) -> None:
        while not self._closed:
            try:
                wait = self._work_once()
            except Exception as error:
                self._report_error("the viewer's thread", error)
                wait = LONGEST_WAIT
            if wait > 0.0:
                self._bridge.wait_for_work(min(wait, LONGEST_WAIT))

    def _work_once(self) -> float:
        """Run the most urgent job that a budget allows now; returns the seconds until the next may run."""
        self._run_submitted()
        now = time.monotonic()
        self._set_rates(now)
        self._take_snapshot(now)
        # A camera that comes to rest sends no message.
        waits = [0.5 * MOVING_SECONDS if any(view.is_moving(now) for view in self._all_views()) else LONGEST_WAIT]
        for budget, job in ((self._interactive, self._interactive_job(now)), (self._idle, self._idle_job(now))):
            if job is None:
                continue
            wait = budget.wait_seconds(now=now)
            if wait <= 0.0:
                started = time.monotonic()
                try:
                    job()
                finally:
                    ended = time.monotonic()
                    budget.spend(ended - started, now=ended)
                return 0.0
            waits.append(wait)
        return min(waits)

    def _take_snapshot(self, now: float) -> None:
        """Take the published snapshot, at most as often as it can be shown; training may then publish again."""
        due = now - self._taken_at >= SECONDS_BETWEEN_SNAPSHOTS and self._idle.wait_seconds(now=now) <= 0.0
        if self._snapshot is None or due:
            self._take_latest(now)

    def _take_latest(self, now: float) -> None:
        snapshot = self._bridge.take_snapshot()
        if snapshot is not None:
            self._snapshot, self._cloud, self._taken_at = snapshot, None, now

    def _set_rates(self, now: float) -> None:
        interactive, idle = shares(self.options.share)
        self._interactive.set_rate(interactive, now=now)
        self._idle.set_rate(idle, now=now)
        if not self._is_training():
            self._idle.forgive(now=now)
            self._interactive.forgive(now=now)

    def _run_submitted(self) -> None:
        with self._lock:
            submitted, self._submitted = self._submitted, []
        if submitted:
            # Downloads are of the latest step, even if the page shows an older one.
            self._take_latest(time.monotonic())
        for work, future in submitted:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

    def _interactive_job(self, now: float) -> Job | None:
        """Return a job that a person waits for: a camera moved, or the mode or background changed."""
        snapshot = self._snapshot
        if snapshot is None:
            return None
        if self._splats_are_shown() and (self._streamed is None or self._streamed[1] != self.options.stream):
            return self._stream
        for view in sorted(self._all_views(), key=lambda view: view.rendered_at):
            if view.picture == "splats":
                if view.painted_background != view.background:
                    return self._guarded(view, view.show_splats)
                continue
            wanted = self._wanted(view, snapshot, now)
            # A newer step alone is left to the idle job.
            if wanted is not None and (view.shown is None or replace(wanted, step=view.shown.step) != view.shown):
                return self._rendering(view, wanted)
        return None

    def _idle_job(self, now: float) -> Job | None:
        """Return a job that updates the page to the run's state."""
        if not self._views:
            return None
        if now - self._paged_at >= SECONDS_BETWEEN_PAGES:
            return self._page
        snapshot = self._snapshot
        if snapshot is None:
            return None
        due = now - self._streamed_at >= SECONDS_BETWEEN_STREAMS
        if due and self._streamed is not None and self._streamed[0] != snapshot.step and self._splats_are_shown():
            return self._stream
        cameras_of = snapshot.step if self.options.show_cameras else None
        if due and cameras_of != self._cameras_of:
            return self._show_cameras
        for view in sorted(self._all_views(), key=lambda view: view.rendered_at):
            if view.picture == "render" and not view.is_moving(now):
                wanted = self._wanted(view, snapshot, now)
                if wanted is not None and wanted != view.shown:
                    return self._rendering(view, wanted)
        return None

    def _splats_are_shown(self) -> bool:
        return any(view.picture == "splats" for view in self._all_views())

    def _all_views(self) -> list[ClientView]:
        with self._lock:
            return list(self._views.values())

    def _wanted(self, view: ClientView, snapshot: Snapshot, now: float) -> Shown | None:
        """Return what a client's render view should show; None while its window has no area."""
        pose = view.pose
        if pose is None:
            return None
        at_rest = not view.is_moving(now)
        return Shown(step=snapshot.step, pose=pose, mode=view.mode, background=view.background, at_rest=at_rest)

    def _guarded(self, view: ClientView, work: Job) -> Job:
        """Return a job that reports errors, unless the client has left in the meantime."""

        def job() -> None:
            view.rendered_at = time.monotonic()
            try:
                work()
            except Exception as error:
                if view.client.client_id in self._views:
                    self._report_error(f"the {view.picture} view, {view.mode}", error)

        return job

    def _rendering(self, view: ClientView, wanted: Shown) -> Job:
        def work() -> None:
            # Set first, so that a job that fails is not repeated.
            view.shown = wanted
            view.show_picture(self._picture(view, wanted), at_rest=wanted.at_rest)

        return self._guarded(view, work)

    def _picture(self, view: ClientView, wanted: Shown) -> np.ndarray:
        snapshot = self._snapshot
        if snapshot is None:
            raise ValueError("there is no scene to render")
        if wanted.mode == "denoised target":
            if snapshot.views is None or self._prior is None:
                raise ValueError("no step has been guided yet")
            return target_picture(snapshot.views, self._prior, aspect=wanted.pose.aspect, background=wanted.background)
        share = self.options.share
        seconds = rest_seconds(share) if wanted.at_rest else moving_seconds(share)
        with_depth = wanted.mode in ("depth", "normal")
        speed = self._speeds[with_depth]
        width, height = speed.size(canvas_height=view.canvas_height, aspect=wanted.pose.aspect, seconds=seconds)
        started = time.monotonic()
        picture = render_picture(
            snapshot.representation,
            wanted.pose,
            mode=wanted.mode,
            background=wanted.background,
            width=width,
            height=height,
            device=self._device,
        )
        speed.learn(width * height, time.monotonic() - started)
        return picture

    def _stream(self) -> None:
        snapshot, options = self._snapshot, self.options.stream
        if snapshot is None:
            return
        # Set first, so that a job that fails is not repeated.
        self._streamed, self._streamed_at = (snapshot.step, options), time.monotonic()
        cloud = self.cloud()
        if cloud is not None:
            self._arrays = splat_arrays(cloud, options)
            self._scene.show_splats(self._arrays)

    def _show_cameras(self) -> None:
        snapshot, show = self._snapshot, self.options.show_cameras
        if snapshot is not None:
            self._cameras_of = snapshot.step if show else None
            self._scene.show_cameras(snapshot.views if show else None)

    def _page(self) -> None:
        self._paged_at = time.monotonic()
        self._fill_page(self._arrays)

"""The viewer's worker thread: it renders, streams splats and updates the page, and never makes training wait.

It works on snapshots. It keeps only the latest camera of each client, so that requests never queue. Every job is
charged to a budget: interactive jobs to the share of time that training leaves, background jobs to a small share of
their own.
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
"""Ends of the page's slider of the share of its speed that training keeps while a camera moves."""
SECONDS_BETWEEN_SNAPSHOTS = 0.1
SECONDS_BETWEEN_STREAMS = 0.2
SECONDS_BETWEEN_PAGES = 0.5
LONGEST_WAIT = 0.5

Job = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """Values of the page's shared controls; page threads replace the whole object."""

    share: float = DEFAULT_SHARE
    stream: StreamOptions = StreamOptions()
    show_cameras: bool = False


class RenderWorker:
    """The worker thread, from ``start`` to ``stop``."""

    def __init__(
        self,
        bridge: Bridge,
        scene: Scene,
        *,
        device: torch.device,
        prior: DiffusionPrior | None,
        fill_page: Callable[[SplatArrays | None], None],
        failed: Callable[[str, Exception], None],
        is_training: Callable[[], bool],
    ) -> None:
        self.wishes = Wishes()
        self._bridge, self._scene = bridge, scene
        self._device, self._prior = device, prior
        self._fill_page, self._failed, self._is_training = fill_page, failed, is_training
        self._views: dict[int, ClientView] = {}
        self._asked: list[tuple[Callable[[], Any], Future[Any]]] = []
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
        """Finish the current job, end the thread, and cancel waiting work."""
        self._closed = True
        self._bridge.wake()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)
        with self._lock:
            asked, self._asked = self._asked, []
        for _, future in asked:
            future.cancel()

    def wish(self, **changes: Any) -> None:
        """Change some values of the shared controls."""
        with self._lock:
            self.wishes = replace(self.wishes, **changes)
        self._bridge.wake()

    def add_client(self, view: ClientView) -> None:
        """Serve a client from now on."""
        with self._lock:
            self._views[view.client.client_id] = view
        self._bridge.set_watchers(len(self._views))

    def remove_client(self, client_id: int) -> None:
        """Forget a client."""
        with self._lock:
            self._views.pop(client_id, None)
        self._bridge.set_watchers(len(self._views))

    def ask(self, work: Callable[[], Any]) -> Future[Any]:
        """Queue a call for the worker's thread, which makes it between its jobs."""
        future: Future[Any] = Future()
        with self._lock:
            self._asked.append((work, future))
        self._bridge.wake()
        return future

    @property
    def current(self) -> Snapshot | None:
        """The snapshot being shown."""
        return self._snapshot

    def cloud(self) -> SplatCloud | None:
        """Return all splats being shown, on the host; None for a scene without splats. For the worker's thread only."""
        snapshot = self._snapshot
        if self._cloud is None and snapshot is not None:
            splats = snapshot.representation.splats()
            self._cloud = None if splats is None else splats.cpu()
        return self._cloud

    def arrays(self) -> SplatArrays | None:
        """Return the splats as they are streamed. For the worker's thread only."""
        cloud = self.cloud()
        return None if cloud is None else splat_arrays(cloud, self.wishes.stream)

    def _run(self) -> None:
        while not self._closed:
            try:
                wait = self._work_once()
            except Exception as error:
                self._failed("the viewer's thread", error)
                wait = LONGEST_WAIT
            if wait > 0.0:
                self._bridge.wait_for_news(min(wait, LONGEST_WAIT))

    def _work_once(self) -> float:
        """Do the most urgent job that may run now; return the seconds until there may be another."""
        self._do_asked()
        now = time.monotonic()
        self._set_rates(now)
        self._take_snapshot(now)
        # A camera that comes to rest sends no message, so wake up by time.
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
        """Take the published snapshot, which lets training publish again, at most as often as it can be shown."""
        due = now - self._taken_at >= SECONDS_BETWEEN_SNAPSHOTS and self._idle.wait_seconds(now=now) <= 0.0
        if self._snapshot is None or due:
            self._take_latest(now)

    def _take_latest(self, now: float) -> None:
        snapshot = self._bridge.take_snapshot()
        if snapshot is not None:
            self._snapshot, self._cloud, self._taken_at = snapshot, None, now

    def _set_rates(self, now: float) -> None:
        interactive, idle = shares(self.wishes.share)
        self._interactive.set_rate(interactive, now=now)
        self._idle.set_rate(idle, now=now)
        if not self._is_training():
            self._idle.forgive(now=now)
            self._interactive.forgive(now=now)

    def _do_asked(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, []
        if asked:
            # Downloads contain the latest published snapshot, even if the page still shows an older one.
            self._take_latest(time.monotonic())
        for work, future in asked:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

    def _interactive_job(self, now: float) -> Job | None:
        """Return a job that a person waits for: after a moved camera, another mode or another background."""
        snapshot = self._snapshot
        if snapshot is None:
            return None
        if self._somebody_sees_splats() and (self._streamed is None or self._streamed[1] != self.wishes.stream):
            return self._stream
        for view in sorted(self._all_views(), key=lambda view: view.rendered_at):
            if view.picture == "splats":
                if view.painted_background != view.background:
                    return self._guarded(view, view.show_splats)
                continue
            wanted = self._wanted(view, snapshot, now)
            # A newer step alone is no reason: the idle job refreshes pictures.
            if wanted is not None and (view.shown is None or replace(wanted, step=view.shown.step) != view.shown):
                return self._rendering(view, wanted)
        return None

    def _idle_job(self, now: float) -> Job | None:
        """Return a background job, which makes the page follow the run."""
        if not self._views:
            return None
        if now - self._paged_at >= SECONDS_BETWEEN_PAGES:
            return self._page
        snapshot = self._snapshot
        if snapshot is None:
            return None
        due = now - self._streamed_at >= SECONDS_BETWEEN_STREAMS
        if due and self._streamed is not None and self._streamed[0] != snapshot.step and self._somebody_sees_splats():
            return self._stream
        cameras_of = snapshot.step if self.wishes.show_cameras else None
        if due and cameras_of != self._cameras_of:
            return self._show_cameras
        for view in sorted(self._all_views(), key=lambda view: view.rendered_at):
            if view.picture == "render" and not view.is_moving(now):
                wanted = self._wanted(view, snapshot, now)
                if wanted is not None and wanted != view.shown:
                    return self._rendering(view, wanted)
        return None

    def _somebody_sees_splats(self) -> bool:
        return any(view.picture == "splats" for view in self._all_views())

    def _all_views(self) -> list[ClientView]:
        with self._lock:
            return list(self._views.values())

    def _wanted(self, view: ClientView, snapshot: Snapshot, now: float) -> Shown | None:
        """Return what a client's render should show now; None while its window has no area."""
        pose = view.pose
        if pose is None:
            return None
        at_rest = not view.is_moving(now)
        return Shown(step=snapshot.step, pose=pose, mode=view.mode, background=view.background, at_rest=at_rest)

    def _guarded(self, view: ClientView, work: Job) -> Job:
        """Return a job that reports its errors unless the client has disconnected."""

        def job() -> None:
            view.rendered_at = time.monotonic()
            try:
                work()
            except Exception as error:
                if view.client.client_id in self._views:
                    self._failed(f"the {view.picture} view, {view.mode}", error)

        return job

    def _rendering(self, view: ClientView, wanted: Shown) -> Job:
        def work() -> None:
            # Recorded before the attempt, so that a failing one is not repeated endlessly.
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
        share = self.wishes.share
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
        snapshot, options = self._snapshot, self.wishes.stream
        if snapshot is None:
            return
        # Recorded before the attempt, so that a failing one is not repeated endlessly.
        self._streamed, self._streamed_at = (snapshot.step, options), time.monotonic()
        cloud = self.cloud()
        if cloud is not None:
            self._arrays = splat_arrays(cloud, options)
            self._scene.show_splats(self._arrays)

    def _show_cameras(self) -> None:
        snapshot, show = self._snapshot, self.wishes.show_cameras
        if snapshot is not None:
            self._cameras_of = snapshot.step if show else None
            self._scene.show_cameras(snapshot.views if show else None)

    def _page(self) -> None:
        self._paged_at = time.monotonic()
        self._fill_page(self._arrays)

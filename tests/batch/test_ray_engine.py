"""Workers on a Ray cluster of two nodes on this machine: deaths, folders that are not shared, another package."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_batches import PROMPTS, driven, opened, rows_of
from small_runs import config, whole_run

import sdi_gs
from sdi_gs.batch import ray_cluster
from sdi_gs.batch.engine import EngineEvent, EngineNote, WorkerLost, WorkerReady
from sdi_gs.batch.journal import RowEvent
from sdi_gs.batch.ray_engine import RayEngine, RayOptions
from sdi_gs.batch.state import BatchState
from sdi_gs.errors import UserError

pytestmark = [
    pytest.mark.slow,
    # Ray leaves sockets and files to the collector.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes, the second of which has the package in another version."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    class Patient(Cluster):
        """Waits longer than half a minute for a node, on a machine that has no time for it."""

        def _wait_for_node(self, node: Any, timeout: float = 600.0) -> None:
            super()._wait_for_node(node, timeout)

    os.environ["RAY_raylet_start_wait_time_s"] = "180"
    old = tmp_path_factory.mktemp("old")
    (old / "sdi_gs").mkdir()
    for path in Path(sdi_gs.__file__).parent.iterdir():
        if path.name != "__pycache__":
            (old / "sdi_gs" / path.name).symlink_to(path)
    (old / "sdi_gs/__init__.py").unlink()
    (old / "sdi_gs/__init__.py").write_text("__version__ = '0.0.1'\n")
    cluster = Patient(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(old)})
    yield cluster
    cluster.shutdown()
    # What Ray leaves to the collector is collected here, where warnings of it are ignored.
    del cluster
    gc.collect()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder without the package: Ray lets its workers import from there first."""
    monkeypatch.chdir(tmp_path)


def ray_workers(cluster: Any) -> list[int]:
    """Processes of actors on the cluster's nodes, and of no other cluster on this machine."""
    raylets = {one.process.pid for node in cluster.list_all_nodes() for one in node.all_processes["raylet"]}
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "cmdline").read_bytes()
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if name.startswith(b"ray::RayWorker") and parent in raylets:
            found.append(int(path.name))
    return found


class Together(RayEngine):
    """Reports no worker as ready before two are: a late one would find no row left.

    One that is lost before is reported, so that it is asked for again.
    """

    def __init__(self, options: RayOptions, *, out: Path, num_rows: int) -> None:
        super().__init__(options, out=out, num_rows=num_rows)
        self._held: dict[str, WorkerReady] | None = {}

    def poll(self, seconds: float) -> list[EngineEvent]:
        events = super().poll(seconds)
        if self._held is None:
            return events
        for event in events:
            if isinstance(event, WorkerReady):
                self._held[event.worker] = event
            elif isinstance(event, WorkerLost):
                self._held.pop(event.worker, None)
        others: list[EngineEvent] = [event for event in events if not isinstance(event, WorkerReady)]
        if len(self._held) < 2:
            return others
        held, self._held = self._held, None
        return [*others, *held.values()]


class KillOnce:
    """Kills one actor's process as soon as a row has a checkpoint."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self.killed = False
        self.machines: set[str] = set()
        self.notes: list[str] = []

    def observe(self, event: EngineEvent | None, state: BatchState) -> None:
        if isinstance(event, EngineNote | WorkerLost):
            self.notes.append(getattr(event, "text", "") or getattr(event, "reason", ""))
        if isinstance(event, WorkerReady):
            self.machines.add(event.machine)
        if isinstance(event, RowEvent) and event.event == "checkpoint" and not self.killed:
            for process in ray_workers(self._cluster)[:1]:
                os.kill(process, signal.SIGKILL)
                self.killed = True


@pytest.mark.parametrize("collect", [False, True])
def test_rows_of_two_nodes_survive_a_killed_worker_and_have_the_bytes_of_single_runs(
    cluster: Any, tmp_path: Path, collect: bool
) -> None:
    out, watched = tmp_path / "out", KillOnce(cluster)
    options = RayOptions(address=cluster.address, collect=collect, collect_every=1)
    with opened(out, rows_of(*PROMPTS)) as batch:
        engine = Together(options, out=out, num_rows=3)
        assert engine.room == 2
        scheduler = driven(engine, batch, out, observers=[watched])
    assert (scheduler.finished, scheduler.failed) == (3, 0), watched.notes
    assert watched.killed
    assert len(watched.machines) == 2, watched.notes
    for row in rows_of(*PROMPTS):
        single = whole_run(tmp_path / "single" / row.key, config(prompt=row.prompt))
        assert (row.folder(out) / "splats.ply").read_bytes() == single.splats.read_bytes()
        assert (row.folder(out) / "config.yaml").read_bytes() == single.config.read_bytes()


def test_a_node_with_another_version_is_refused_where_this_one_is_not_brought_along(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = ray_cluster.brought_along(1)
    monkeypatch.setattr(ray_cluster, "brought_along", lambda threads: {"env_vars": brought["env_vars"]})
    out = tmp_path / "out"
    engine = RayEngine(RayOptions(address=cluster.address), out=out, num_rows=2)
    found: dict[type, list[Any]] = {WorkerLost: [], WorkerReady: []}
    try:
        engine.start()
        while not all(found.values()):
            for event in engine.poll(1.0):
                found.setdefault(type(event), []).append(event)
    finally:
        engine.close(at_once=True)
    [lost] = found[WorkerLost]
    assert lost.is_final
    assert f"uses sdi-gs 0.0.1 from {tmp_path.parent}" in lost.reason
    assert f"and this program is {sdi_gs.__version__}" in lost.reason


def test_a_node_that_does_not_see_the_folder_is_refused_by_name(cluster: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    engine = RayEngine(RayOptions(address=cluster.address, workers=1), out=out, num_rows=1)
    # As on a machine where the path means another disk.
    engine._seen = Path("/nowhere/.seen")
    try:
        engine._grow()
        events: list[EngineEvent] = []
        while not any(isinstance(event, WorkerLost) for event in events):
            events += engine.poll(1.0)
    finally:
        engine.close(at_once=True)
    [lost] = [event for event in events if isinstance(event, WorkerLost)]
    assert lost.is_final
    assert lost.reason.startswith("node ")
    assert "does not see /nowhere" in lost.reason


def test_a_cluster_without_a_card_is_refused_for_a_run_that_needs_one(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no node of the cluster has 1 of a GPU"):
        RayEngine(RayOptions(address=cluster.address, uses_gpus=True), out=tmp_path, num_rows=1)

"""How a Ray cluster is connected to, without one: the lines of what goes wrong, and what goes to its nodes."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sdi_gs
from sdi_gs.batch.ray_cluster import OWN_CLUSTER, UNWATCHED, brought_along, connected, refused
from sdi_gs.batch.ray_worker import LIBRARIES, differing_libraries, library_versions
from sdi_gs.batch.threads import usable_cores
from sdi_gs.errors import UserError

NOISE = b"InvalidAuthToken: Authentication token is missing or incorrect\n"


class StandIn:
    """Ray's ``init``, which notes what it is called with, prints past sys.stderr, and fails if it is given an error."""

    def __init__(self, error: Exception | None = None, noise: bytes = b"") -> None:
        self.error = error
        self.noise = noise
        self.given: dict[str, Any] = {}
        self.environment: dict[str, str] = {}

    def init(self, **given: Any) -> SimpleNamespace:
        self.given, self.environment = given, dict(os.environ)
        os.write(2, self.noise)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(dashboard_url="")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    pytest.importorskip("ray")
    made = StandIn()
    monkeypatch.setattr("ray.init", made.init)
    return made


def test_a_cluster_of_its_own_has_the_cores_of_this_process_and_no_dashboard(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    stand_in.noise = NOISE
    _, dashboard = connected(None, threads=3)
    assert dashboard is None
    assert stand_in.given["num_cpus"] == usable_cores()
    assert stand_in.given["include_dashboard"] is False
    # An environment of their own would keep the workers from the processes that Ray starts in advance.
    assert "runtime_env" not in stand_in.given
    assert stand_in.environment["NUMBA_NUM_THREADS"] == "3"
    assert "NUMBA_NUM_THREADS" not in os.environ
    assert capfd.readouterr().err == ""


def test_a_cluster_of_its_own_gathers_and_reports_nothing_that_nobody_sees(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = OWN_CLUSTER | UNWATCHED
    for name in settings:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "7")
    connected(None, threads=1)
    assert {name: stand_in.environment[name] for name in settings} == settings | {"RAY_worker_niceness": "7"}
    assert settings.keys() & os.environ.keys() == {"RAY_worker_niceness"}
    connected(None, threads=1, dashboard=True)
    assert settings.keys() & stand_in.environment.keys() == OWN_CLUSTER.keys()


def test_a_cluster_that_runs_keeps_its_settings(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = OWN_CLUSTER | UNWATCHED
    for name in settings:
        monkeypatch.delenv(name, raising=False)
    connected("auto", threads=1)
    assert not settings.keys() & stand_in.environment.keys()


def test_a_cluster_that_runs_gets_this_package(stand_in: StandIn) -> None:
    connected("auto", threads=2)
    assert stand_in.given["address"] == "auto"
    assert stand_in.given["runtime_env"] == brought_along(2)
    [folder] = brought_along(2)["py_modules"]
    assert Path(folder, "__init__.py").samefile(sdi_gs.__file__)
    assert brought_along(2)["env_vars"]["OMP_NUM_THREADS"] == "2"


def test_a_cluster_that_asks_for_its_token_is_described_by_one_line(
    stand_in: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in.error, stand_in.noise = ConnectionError("Failed to connect to Ray cluster\nat x"), 20 * NOISE
    with pytest.raises(UserError, match=r"^the Ray cluster at auto asks for its token.*set RAY_AUTH_MODE=token$"):
        connected("auto", threads=1)
    assert capfd.readouterr().err == ""
    stand_in.noise = b""
    with pytest.raises(UserError, match=r"^no Ray cluster answers at auto \(Failed to connect to Ray cluster at x\): "):
        connected("auto", threads=1)


def test_ray_s_client_is_asked_for_where_it_is_missing(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "grpc" else find(name, *more))
    with pytest.raises(
        UserError, match=r'^--ray-address ray://head:10001 needs Ray\'s client: pip install "ray\[client\]"$'
    ):
        connected("ray://head:10001", threads=1)
    assert not stand_in.given


def test_other_versions_are_named() -> None:
    reason = "Version mismatch: The cluster was started with: Ray: 2.9.0 Python: 3.10.2"
    assert refused("head:6379", reason) == (
        f"the Ray cluster at head:6379 runs on other versions: install the same on both sides ({reason})"
    )


def test_ray_s_client_may_have_had_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert "(or RAY_AUTH_MODE=token, if it has a token)" in refused("ray://head:1", "ray client connection timeout")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert "RAY_AUTH_MODE" not in refused("ray://head:1", "ray client connection timeout")


def test_libraries_of_other_versions_are_named() -> None:
    here = library_versions()
    assert set(here) == set(LIBRARIES)
    assert differing_libraries(here, here) == ""
    assert differing_libraries({"torch": "2.1", "numpy": "2.0", "numba": "1"}, {"torch": "2.0", "numpy": "2.0"}) == (
        "torch 2.0, not 2.1"
    )

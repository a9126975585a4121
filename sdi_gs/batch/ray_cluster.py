"""Connect to a Ray cluster, or start one on this machine, with this package and a worker's threads on every node.

Needs the extra ``ray``, which is imported when it is used. Imports no torch.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdi_gs.batch.threads import thread_environment, usable_cores
from sdi_gs.errors import UserError

ANSWER_SECONDS = 10.0
"""How long a cluster may take to answer at all."""
MOST_PORT = 65535
START_SECONDS = 180
"""How long a cluster on this machine may take to start."""
OWN_CLUSTER = {
    # Ray gives its workers the lowest priority but four, so that the node of a cluster answers whatever they do. Here
    # every other program would take the cores from the rows: they get the priority that local workers have.
    "RAY_worker_niceness": "0",
    # Nothing is reported to Ray's makers about a cluster that nobody has asked for by name.
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Ray's own settings of a cluster that is started for one batch on this machine; what the user has set wins."""
UNWATCHED = {
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "0",
}
"""Settings without a dashboard: nothing is gathered that only a dashboard would show."""
TOKEN_MODE = "RAY_AUTH_MODE"
"""Variable without which Ray shows its token (``ray get-auth-token``) to no address that is given in full."""
PACKAGE = Path(__file__).parents[1]
"""The folder of this package."""
LARGEST_SAID = 2**16
"""Bytes of what Ray prints in which the reason is looked for."""
LONGEST_REASON = 300
"""Characters of Ray's own words in a message."""


def require_ray() -> None:
    """Raise UserError if Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UserError('--engine ray needs Ray: pip install "sdi-gs[ray]", or use --engine local')


def connected(address: str | None, *, threads: int, dashboard: bool = False) -> tuple[Any, str | None]:
    """Return the module ``ray``, connected to a cluster, and its dashboard's address, if it has one.

    The actors of this program may use so many ``threads`` each. On a cluster that runs they use this very package,
    whatever its nodes have; one that is started here, with a ``dashboard`` only if asked for, has it anyway.
    Raises UserError without Ray or without the cluster.
    """
    require_ray()
    if address is not None and address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise UserError(f'--ray-address {address} needs Ray\'s client: pip install "ray[client]"')
    if address not in (None, "auto"):
        _require_answer(address)
    import ray

    # Seconds that a node may take to start: half a minute is too short for a busy machine.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", str(START_SECONDS))
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with _kept_aside() as said:
        try:
            if address is None:
                # Workers that Ray starts in advance are taken only by actors without an environment of their own, so
                # that they inherit this one.
                with _environment({**thread_environment(threads), **own_settings(dashboard=dashboard)}):
                    cores = usable_cores()
                    context = ray.init(address="local", num_cpus=cores, include_dashboard=dashboard, **quiet)
            else:
                context = ray.init(address=address, runtime_env=brought_along(threads), **quiet)
        # Where a node does not start in time Ray raises Exception itself.
        except Exception as error:
            reason = (" ".join(str(error).split()) or type(error).__name__)[:LONGEST_REASON]
            if address is None:
                raise UserError(f"Ray could not be started on this machine ({reason}); try --engine local") from error
            raise UserError(refused(address, reason, said())) from error
    return ray, context.dashboard_url or None


def own_settings(*, dashboard: bool) -> dict[str, str]:
    """Return the environment variables of a cluster that is started here, without those that are set already."""
    settings = OWN_CLUSTER if dashboard else OWN_CLUSTER | UNWATCHED
    return {name: value for name, value in settings.items() if name not in os.environ}


def brought_along(threads: int) -> dict[str, Any]:
    """Return Ray's ``runtime_env`` that brings this package to a node, its compiled kernels too, and sets threads."""
    return {
        "py_modules": [str(PACKAGE)],
        # Kernels that are being compiled just now.
        "excludes": ["*.tmp.*"],
        "env_vars": dict(thread_environment(threads)),
    }


def refused(address: str, reason: str, said: str = "") -> str:
    """Return the line of a cluster that could not be connected to, from Ray's reason and what it printed."""
    if "AuthToken" in said or "token" in reason.lower():
        return (
            f"the Ray cluster at {address} asks for its token, which ray get-auth-token prints on its head: write it "
            f"to ~/.ray/auth_token here, and set {TOKEN_MODE}=token"
        )
    if "version" in reason.lower():
        return f"the Ray cluster at {address} runs on other versions: install the same on both sides ({reason})"
    # Ray's client tells a missing token from no cluster by nothing.
    timeout = "timeout" in reason and TOKEN_MODE not in os.environ
    token = f" (or {TOKEN_MODE}=token, if it has a token)" if timeout else ""
    return (
        f"no Ray cluster answers at {address} ({reason}): start one with ray start --head, check --ray-address{token}, "
        "or leave it out for one on this machine"
    )


def _require_answer(address: str) -> None:
    """Raise UserError unless something listens at an address: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > MOST_PORT:
        raise UserError(f"--ray-address {address} means nothing: use auto, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(refused(address, error.strerror or str(error))) from error


@contextmanager
def _kept_aside() -> Iterator[Callable[[], str]]:
    """Keep what is printed on stderr, and yield what returns it: Ray repeats there for half a minute why it waits.

    Ray's lines are printed by compiled code, past sys.stderr.
    """
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), LARGEST_SAID, 0).decode(errors="replace")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started inside the context."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

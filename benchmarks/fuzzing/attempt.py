"""One input tried on the program, in this process, and what was wrong about it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import time
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.targets import Case, Target

LEFTOVER = re.compile(r"\.[0-9a-f]{8}-|\.aside-")
"""Beginning of the name of a file that is being written."""
WARNING = re.compile(r"^(?!sdi-gs: warning: ).*\b[A-Z]\w*Warning: ", re.MULTILINE)
"""A warning of a library, which should not have been asked for such numbers."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an input went."""

    index: int
    arguments: Sequence[str]
    about: str
    code: int | None
    """Exit code; None after an exception."""
    fault: str
    """What must not happen; empty where all is well."""
    seconds: float
    """CPU time."""


def generator_of(name: str, seed: int, index: int) -> np.random.Generator:
    """Return the generator of one input, the same wherever it is tried."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), index])


def attempt(
    target: Target,
    good: Any,
    rng: np.random.Generator,
    folder: Path,
    index: int,
    *,
    main: Callable[[Sequence[str]], int],
) -> Outcome:
    """Make an input in ``folder``, which is new, and give it to ``main``."""
    folder.mkdir(parents=True)
    case = target.case(good, rng, folder)
    before = _files(folder)
    logs = {name: (folder / name).read_bytes() for name in case.may_grow if (folder / name).is_file()}
    out, err, started = io.StringIO(), io.StringIO(), time.process_time()
    code, fault = None, ""
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(case.arguments))
        except BaseException:
            # Whatever leaves the program is what is looked for.
            fault = traceback.format_exc()
    after = _files(folder)
    for name, content in logs.items():
        if (folder / name).is_file() and (folder / name).read_bytes().startswith(content):
            after[name] = before[name]
    return Outcome(
        index=index,
        arguments=case.arguments,
        about=case.about,
        code=code,
        fault=fault or _fault(case, code, err.getvalue(), before, after),
        seconds=time.process_time() - started,
    )


def _fault(case: Case, code: int | None, said: str, before: dict[str, str], after: dict[str, str]) -> str:
    """Return what must not be: a wrong exit code or message, a file that was lost or left over."""
    # Also what may be written anew must be there afterwards, and is as it was if the command was refused.
    rewritten = case.may_change if code == 0 else ()
    lost = [name for name, digest in before.items() if name not in after]
    lost += [
        name for name, digest in before.items() if name in after and after[name] != digest and name not in rewritten
    ]
    left = [name for name in after.keys() - before.keys() if any(map(LEFTOVER.match, Path(name).parts))]
    errors = [line for line in said.splitlines() if line.startswith("sdi-gs: ") and " warning: " not in line]
    if lost or left:
        return f"files lost: {lost}, left over: {left}"
    if "Traceback" in said or WARNING.search(said):
        return f"stderr: {said}"
    if code not in (0, 2):
        return f"exit code {code}: {said}"
    if (len(errors) == 1) != (code == 2):
        return f"exit code {code} with {len(errors)} lines of errors: {said}"
    return ""


def _files(folder: Path) -> dict[str, str]:
    """Return the digests of all files by their names."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }

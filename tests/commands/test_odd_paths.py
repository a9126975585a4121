"""Every option that takes a path, given a path that no file can have: one line, and nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import SMOKE, refusal

from sdi_gs.files import is_there, write_atomically

OPTIONS = {
    "train --output-dir": [*SMOKE, "--output-dir", "@"],
    "train --resume": ["train", "--resume", "@"],
    "train --init-from": [*SMOKE, "--init-from", "@"],
    "train --prior": ["train", "--prompt", "a robot", "--device", "cpu", "--prior", "@"],
    "train --lora": [*SMOKE, "--lora", "@"],
    "train --embedding": [*SMOKE, "--embedding", "@"],
    "render": ["render", "@"],
    "view": ["view", "@"],
    "export": ["export", "@"],
    "eval": ["eval", "@"],
    "priors list": ["priors", "list", "@"],
    "priors fetch": ["priors", "fetch", "@"],
    "doctor --report": ["doctor", "--full", "--device", "cpu", "--report", "@"],
    "probe --out": ["probe", "--prompt", "a blue robot", "--device", "cpu", "--out", "@"],
    "probe --source": ["probe", "--prompt", "a blue robot", "--device", "cpu", "--source", "@"],
    "probe --prior": ["probe", "--prompt", "a blue robot", "--device", "cpu", "--prior", "@"],
}
PATHS = {
    "a long name": "x" * 300,
    "a long name in a folder": f"folder/{'x' * 300}/y.ply",
    "a long path": "/".join(["d"] * 3000),
    "a loop": "loop",
    "within a loop": "loop/a.ply",
    "a read-only place": "/proc/none/a",
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_path_that_no_file_can_have_is_refused(
    option: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever names a repository must not be looked for on the network.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (here / "loop").symlink_to("other")
    (here / "other").symlink_to("loop")
    for path in PATHS.values():
        if option in ("doctor --report", "probe --out") and path.startswith(("/proc", "x", "folder", "d/")):
            # Found where the work begins: the next test.
            continue
        line = refusal([path if word == "@" else word for word in OPTIONS[option]], capsys)
        assert len(line) < 900
    assert sorted(path.name for path in here.iterdir()) == ["loop", "other"]


def test_a_file_may_have_the_longest_name(tmp_path: Path) -> None:
    longest = tmp_path / ("é" * 127)
    write_atomically(longest, b"mine")
    assert longest.read_bytes() == b"mine"
    assert os.listdir(tmp_path) == [longest.name]
    assert is_there(longest)
    assert not is_there(tmp_path / "none")
    assert not is_there(longest / "below a file")

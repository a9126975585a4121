"""File systems that do not flush, such as CIFS, VirtualBox's and WSL's folders, lose durability and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import files_in

from sdi_gs.commands.main import main
from sdi_gs.errors import UserError
from sdi_gs.files import write_atomically
from sdi_gs.runs.checkpoint import load_checkpoint, save_checkpoint
from sdi_gs.splats.ply import write_splat_ply
from sdi_gs.splats.splat_cloud import SplatCloud

Refuse = Callable[[int, bool], None]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Return a function that makes fsync fail for folders, or for all there is."""
    fsync = os.fsync

    def refuse(code: int, files_too: bool) -> None:
        def refusing(descriptor: int) -> None:
            if files_too or stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(code, os.strerror(code))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", refusing)

    return refuse


FOLDERS = [(code, False) for code in (errno.EINVAL, errno.ENOTSUP, errno.EIO, errno.EACCES)]
ALL = [(code, True) for code in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)]


@pytest.mark.parametrize(("code", "files_too"), [*FOLDERS, *ALL])
def test_files_and_checkpoints_are_written_all_the_same(
    tmp_path: Path, refuse: Refuse, code: int, files_too: bool
) -> None:
    refuse(code, files_too)
    write_atomically(tmp_path / "a.bin", b"data")
    assert files_in(tmp_path) == {"a.bin": b"data"}
    for value in (1.0, 2.0):
        path = save_checkpoint(tmp_path / "run", 7, {"means": torch.full((2,), value)}, {})
    assert load_checkpoint(path).tensors["means"].tolist() == [2.0, 2.0]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step_000007"]


def test_export_into_such_a_folder_succeeds(tmp_path: Path, refuse: Refuse, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = SplatCloud(
        means=torch.zeros(3, 3),
        log_scales=torch.full((3, 3), -3.0),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 3),
        opacity_logit=torch.full((3,), 2.0),
        sh_dc=torch.zeros(3, 3),
        sh_rest=torch.zeros(3, 0, 3),
    )
    write_splat_ply(tmp_path / "in.ply", cloud)
    refuse(errno.EINVAL, False)
    assert main(["export", str(tmp_path / "in.ply"), "--out", str(tmp_path / "out.ply")]) == 0
    assert (tmp_path / "out.ply").stat().st_size > 0
    assert "cannot write" not in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_file_that_could_not_be_kept_is_still_an_error(tmp_path: Path, refuse: Refuse, code: int) -> None:
    refuse(code, True)
    with pytest.raises(UserError, match=r"cannot write|no space left"):
        write_atomically(tmp_path / "a.bin", b"data")
    with pytest.raises(UserError, match=r"cannot write|no space left"):
        save_checkpoint(tmp_path / "run", 7, {}, {})
    assert files_in(tmp_path) == {}

"""The contact sheet."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sdi_gs.errors import UserError
from sdi_gs.toybox.classes import CLASSES
from sdi_gs.toybox.sheet import CANONICAL_VIEWS, NUM_SAMPLES, PAIRS, contact_sheet, main, pairs_sheet, styled_sheet


def test_sheet_shows_something_in_every_tile(tmp_path: Path) -> None:
    size = 24
    rows = len(CANONICAL_VIEWS) + NUM_SAMPLES
    sheet = contact_sheet(size)
    assert sheet.shape == (rows * size, len(CLASSES) * size, 3)
    tiles = sheet.reshape(rows, size, len(CLASSES), size, 3)
    assert (tiles.amin(dim=(1, 3, 4)) < 0.8).all()
    main([str(tmp_path / "sheet.png")])
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size[0] / image.size[1] == pytest.approx(len(CLASSES) / rows)


def test_styled_sheet_shows_a_pattern_in_every_tile(tmp_path: Path) -> None:
    size, rows = 32, len(CANONICAL_VIEWS)
    members = styled_sheet(size, "patchwork").reshape(rows, size, len(CLASSES), size, 3)
    assert (members.amin(dim=(1, 3, 4)) < 0.5).all()
    assert (members - styled_sheet(size, "striped").reshape(members.shape)).abs().amax(dim=(1, 3, 4)).min() > 0.2
    main([str(tmp_path / "members.png"), "patchwork"])
    assert (tmp_path / "members.png").stat().st_size > 1000
    with pytest.raises(UserError, match="patchwork|striped"):
        main([str(tmp_path / "members.png"), "dotted"])


def test_sheet_of_two_objects_shows_each_pair_from_all_sides(tmp_path: Path) -> None:
    size, columns = 24, len(CANONICAL_VIEWS) + NUM_SAMPLES
    tiles = pairs_sheet(size).reshape(len(PAIRS), size, columns, size, 3)
    assert (tiles.amin(dim=(1, 3, 4)) < 0.8).all()
    main([str(tmp_path / "two.png"), "two"])
    with Image.open(tmp_path / "two.png") as image:
        assert image.size == (96 * columns, 96 * len(PAIRS))


def test_sheet_wants_one_path() -> None:
    with pytest.raises(UserError, match="usage"):
        main([])

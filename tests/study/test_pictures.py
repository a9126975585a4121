"""Sheets and figures of a study: what stands where, and equal files for equal numbers."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_studies import a_study

from sdi_gs.study.differences import Result, cells_of, contrasts_of
from sdi_gs.study.figures import figure_rows, write_figures
from sdi_gs.study.sheets import HEAD, MARGIN, labelled_sheet
from sdi_gs.study.spec import Block

STUDY = replace(
    a_study(comparisons=(("sdi", "sds"),)),
    blocks=(Block(setting="plain", arms=("sdi", "sds"), budgets=("steps",), prompts=("a blue robot",), seeds=(0,)),),
)
COLOURS = ((250, 20, 20), (20, 200, 20), (20, 20, 250), (240, 200, 20))


def plain(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((40, 80, 3), colour, dtype=np.uint8)


def opened(sheet: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB")).astype(int)


def test_a_sheet_has_a_row_per_prompt_and_a_column_per_arm() -> None:
    pictures = [[plain(colour) for colour in COLOURS[:2]], [plain(colour) for colour in COLOURS[2:]]]
    sheet = opened(labelled_sheet(pictures, rows=["a blue robot", "a red mushroom"], columns=["SDI", "SDS"]))
    assert sheet.shape == (HEAD + 80, MARGIN + 160, 3)
    for index, colour in enumerate(COLOURS):
        row, column = divmod(index, 2)
        middle = sheet[HEAD + 40 * row + 20, MARGIN + 80 * column + 40]
        assert np.abs(middle - colour).max() < 30
    # Prompts on the left of their rows, arms above their columns, nothing in the corner.
    for part in (sheet[HEAD : HEAD + 40, :MARGIN], sheet[HEAD + 40 :, :MARGIN]):
        assert part.min() < 100
    for column in (0, 1):
        assert sheet[:HEAD, MARGIN + 80 * column : MARGIN + 80 * (column + 1)].min() < 100
    assert sheet[:HEAD, :MARGIN].min() > 200


def test_long_texts_are_broken_and_stay_inside() -> None:
    long = "a house with a purple roof in front of a snowman with an orange hat"
    sheet = opened(labelled_sheet([[plain((255, 255, 255))]], rows=[long], columns=["SDI"]))
    assert sheet[HEAD:, MARGIN:].min() > 200
    inked = np.flatnonzero((sheet[:, :MARGIN] < 128).any(axis=(1, 2)))
    assert inked.max() - inked.min() > 25


def test_greek_letters_and_signs_of_arms_are_not_boxes() -> None:
    pytest.importorskip("matplotlib")

    def head(text: str) -> bytes:
        return opened(labelled_sheet([[plain((255, 255, 255))]], rows=[""], columns=[text])).tobytes()

    # Letters that a font lacks all look alike.
    shown = [head(text) for text in ("γ", "−", "×", "\ue123")]
    assert len(set(shown)) == 4


def results() -> list[Result]:
    return [
        Result(
            setting="plain",
            arm=arm,
            budget="steps",
            prompt=prompt,
            seed=0,
            scores={"psnr_free": 20.0 + number + 2.0 * (arm == "sdi"), "detail": 0.5},
        )
        for arm in ("sdi", "sds")
        for number, prompt in enumerate(("a blue robot", "a red mushroom", "a green tree"))
    ]


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("count", [1, 3])
def test_equal_numbers_give_equal_figures(tmp_path: Path, count: int) -> None:
    pytest.importorskip("matplotlib")
    prompts = [row.prompt for row in results()][:count]
    found = [result for result in results() if result.prompt in prompts]
    write_figures(STUDY, found, tmp_path, say=print)
    [path] = write_figures(STUDY, found, tmp_path, say=print)
    text = path.read_bytes()
    [other] = write_figures(STUDY, found, made(tmp_path / "other"), say=print)
    assert text == other.read_bytes()
    assert text.startswith(b"<?xml") and len(text) < 60_000
    # Texts stay texts, which a search finds.
    assert b"minus SDS" in text and b"PSNR (more is better)" in text


def test_a_figure_shows_pairs_and_of_a_study_without_comparisons_its_arms() -> None:
    cells = cells_of(STUDY, results(), "plain")
    [row] = figure_rows(STUDY, cells, list(contrasts_of(STUDY, results())))
    assert (row.title, row.is_difference) == ("SDI\nminus SDS", True)
    assert row.values["psnr_free"] == {
        (prompt, 0): 2.0 for prompt in ("a blue robot", "a red mushroom", "a green tree")
    }
    arms = figure_rows(STUDY, cells, [])
    assert [(row.title, row.is_difference) for row in arms] == [("SDI", False), ("SDS", False)]
    assert list(arms[1].values["psnr_free"].values()) == [20.0, 21.0, 22.0]

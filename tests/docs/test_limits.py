"""The limits on the page about reliability are those of the code."""

from __future__ import annotations

import re

import pytest
from sources import ROOT

from sdi_gs.commands.render import MAX_PIXELS
from sdi_gs.files.yaml_tables import DEEPEST, LARGEST_FILE, MOST_EVENTS
from sdi_gs.priors.model_folder import LARGEST_CONFIG
from sdi_gs.representations.mesh_files import MAX_FACES
from sdi_gs.settings.bounds import LONGEST_TEXT
from sdi_gs.settings.gaussians import MAX_INITIAL
from sdi_gs.splats.formats import MAX_SPLATS
from sdi_gs.splats.ply_header import MAX_HEADER_BYTES
from sdi_gs.splats.ply_table import MAX_LINE_BYTES
from sdi_gs.splats.screening import MAX_DISTANCE

ROWS = {
    "splats or points": (MAX_SPLATS, MAX_INITIAL),
    "triangles": (MAX_FACES,),
    "a coordinate": (MAX_DISTANCE,),
    "header of a": (MAX_HEADER_BYTES // 1024, MAX_LINE_BYTES // 1024),
    "`config.yaml`": (LARGEST_FILE // 1024, DEEPEST, MOST_EVENTS),
    "config of a model": (LARGEST_CONFIG // 2**20,),
    "a text": (LONGEST_TEXT,),
    "all pictures": (MAX_PIXELS,),
}


@pytest.mark.parametrize("start", ROWS)
def test_a_limit_on_the_page_is_that_of_the_code(start: str) -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    [found] = re.findall(rf"^\| {re.escape(start)}[^|]* \| ([^|]*) \|$", page, re.MULTILINE)
    numbers = {int(number.replace(" ", "")) for number in re.findall(r"\d[\d ]*", found)}
    assert numbers == set(map(int, ROWS[start]))

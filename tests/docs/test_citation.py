"""CITATION.cff names this version and the paper."""

from __future__ import annotations

import yaml
from sources import ROOT

from sdi_gs import __version__

CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_citation_names_this_version_and_licence() -> None:
    assert CITATION["version"] == __version__
    assert CITATION["license"] == "Apache-2.0"


def test_the_citation_refers_to_the_paper() -> None:
    [paper] = CITATION["references"]
    assert paper["url"].endswith("2405.15891")

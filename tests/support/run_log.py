"""The log of a run as tests read it."""

from __future__ import annotations

import json
from typing import Any

from sdi_gs.runs.folder import RunFolder


def read_events(folder: RunFolder) -> list[dict[str, Any]]:
    """Return what the log holds beside steps, such as changed settings, in order."""
    # A run may be writing: what stands behind the last line feed is not whole.
    lines = folder.steps.read_text().split("\n")[:-1] if folder.steps.exists() else []
    return [record for record in map(json.loads, lines) if "event" in record]

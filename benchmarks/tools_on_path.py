"""Puts ``tools/`` on the module search path; import it before anything that lives there."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

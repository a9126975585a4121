"""Add ``tools/`` to the module search path; import it before the tools."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

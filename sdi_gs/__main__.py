"""``python -m sdi_gs`` is ``sdi-gs``."""

import sys

from sdi_gs.cli import main

sys.exit(main())

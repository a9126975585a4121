"""``python -m sdi_gs`` is ``sdi-gs``."""

import sys

from sdi_gs.commands.main import main

sys.exit(main())

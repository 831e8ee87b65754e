"""`python -m tntd`: the same as the command `tntd`."""

from __future__ import annotations

import sys

from tntd.cli import main

sys.exit(main())

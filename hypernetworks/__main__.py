"""``python -m hypernetworks``."""

import sys

from .cli import main

sys.exit(main())

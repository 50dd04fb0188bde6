"""``python -m embvar_kit`` is ``embvar``."""

import sys

from embvar_kit.cli import main

sys.exit(main())

"""``python -m shardlib``: the same as the command ``shardlib``."""

import sys

from shardlib.cli import main

sys.exit(main())

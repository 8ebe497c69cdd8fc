"""How Sphinx builds the documentation: ``sphinx-build -W docs docs/_build``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import shardlib

project = "shardlib"
author = "The shardlib authors"
version = release = shardlib.__version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Discord's Gateway, without an event loop",
    # The tables and the pictures need more than the theme's 940 pixels.
    "page_width": "1140px",
    "body_max_width": "none",
}

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # "json=ujson", and not where ujson is on this machine
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

"""How Sphinx builds the documentation: ``sphinx-build -W docs docs/_build``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import shardlib

project = "shardlib"
author = "The shardlib authors"
version = release = shardlib.__version__

extensions = ["sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]

# Furo is light and dark as the reader's system is, puts the contents of a page beside its text and
# links to the pages before and after it, is read on a phone without zooming, and loads nothing from
# other servers. It sets long pages of prose well, and most of these pages are that.
html_theme = "furo"
pygments_dark_style = "github-dark"  # Furo's own underlines the names of imported modules
html_title = f"shardlib {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]

# Copied without prompts and output, an example can be pasted.
copybutton_prompt_text = r"\$ |> |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # "json=ujson", and not where ujson is on this machine
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

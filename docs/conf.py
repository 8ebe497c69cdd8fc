"""How Sphinx builds the documentation: ``sphinx-build -W docs docs/_build``."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import sphinx
from docutils import nodes
from pygments.formatters import HtmlFormatter
from sphinx.application import Sphinx
from sphinx.highlighting import PygmentsBridge
from sphinx.writers.html5 import HTML5Translator

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
html_js_files = ["sidebar.js"]
html_show_copyright = False  # LICENSE has it

# Copied without prompts and output, an example can be pasted.
copybutton_prompt_text = r"\$ |> |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

add_module_names = False  # each page of the reference says where its names are imported from
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # "json=ujson", and not where ujson is on this machine
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
# Sphinx takes the type of a parameter from the class attribute of its name, if there is one.
shardlib.Shard.__annotations__.clear()

# A name in a page or docstring that is described nowhere is an error (sphinx-build -W), but for
# what follows. Sphinx 8, the newest on Python 3.10, does not find the types of callbacks.
nitpicky = sphinx.version_info >= (9,)
nitpick_ignore_regex = [
    # What Python and other packages document: to link there, a build would need the network.
    (
        "py:.*",
        r"(collections|logging|multiprocessing|os|random|redis|ssl|threading|time|websocket)(\..*)?",
    ),
    # Types that no program has to name. The text beside each says what will do.
    ("py:class", r"Client|Executor|Gate|JSONModule|Key|Logger|Payload|ShardOptions"),
    (
        "py:class",
        r"shardlib\.(payloads\.JSONModule|(shard|manager)\._Function|testing\.gateway\._T)",
    ),
    ("py:class", r"shardlib\.testing\.(events\.Event|rest\.multipart\.File)"),
]

# sphinx-build -b linkcheck docs docs/_build/linkcheck
linkcheck_timeout = 20
linkcheck_retries = 3
linkcheck_workers = 2
linkcheck_ignore = [
    # Examples, and what runs on the reader's machine.
    r"(https?|wss?)://(localhost|127\.0\.0\.1|host\b|user:|[^/]*\bexample\b)",
    # The Developer Portal shows a page to people who are logged in.
    r"https://discord\.com/developers/applications",
]


class LineFormatter(HtmlFormatter):
    """Puts each line of code into an element that knows its indentation.

    A line that is wider than the page goes on below, and custom.css indents the rest further than
    the line. In the first column the rest would look like the next statement of Python.
    """

    def wrap(self, source: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        return super().wrap(self._lines(source))

    def _lines(self, source: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        for is_code, line in source:
            text = re.sub("<[^>]*>", "", line)
            indentation = len(text) - len(text.lstrip(" "))
            line = line.rstrip("\n")
            yield (
                is_code,
                f'<span class="line" style="--indentation: {indentation}ch">{line}</span>\n',
            )


class Translator(HTML5Translator):
    """Gives each cell of a table the heading of its column.

    On a phone custom.css shows it in the cell, since the cells of a row stand below each other.
    """

    def starttag(
        self, node: Any, tagname: str, suffix: str = "\n", empty: bool = False, **attributes: Any
    ) -> str:
        if tagname == "td" and isinstance(node, nodes.entry):
            group = node.parent.parent.parent
            for head in group.findall(nodes.thead):
                heading = head[0][node.parent.index(node)].astext()
                attributes["data-heading"] = heading
        return super().starttag(node, tagname, suffix, empty, **attributes)


PygmentsBridge.html_formatter = LineFormatter


def setup(app: Sphinx) -> None:
    app.set_translator("html", Translator)

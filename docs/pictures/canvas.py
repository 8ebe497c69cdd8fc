"""What the programs in this directory draw with: texts and shapes on a light card.

The card makes a picture readable on a dark page, too, and in README.rst, which knows no themes.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

CARD = "#fcfcfc"
INK = "#202020"
FAINT = "#a0a0a0"

# The colours of boxes and what they stand for, as in the .dot files: fill and outline.
BLUE = ("#dfe9f5", "#45648a")
YELLOW = ("#fbeccb", "#94702a")
GREEN = ("#d8edd8", "#42794a")
RED = ("#f6dcd8", "#96483e")
GREY = ("#eeeeee", "#707070")


def text(x: float, y: float, content: str, **attributes: str) -> str:
    """A line of text; attributes are those of SVG, with ``_`` for ``-``."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{_shown(attributes)}>{escape(content)}</text>'


def box(
    x: float, y: float, width: float, height: float, colours: tuple[str, str], radius: float = 0
) -> str:
    """A filled box with an outline."""
    fill, stroke = colours
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'rx="{radius:g}" fill="{fill}" stroke="{stroke}"/>'
    )


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, **attributes: str) -> str:
    """A straight line."""
    path = f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"
    return f'<path d="{path}" stroke="{stroke}" fill="none"{_shown(attributes)}/>'


def arrow(x1: float, x2: float, y: float, stroke: str, **attributes: str) -> str:
    """A horizontal arrow from the first place to the second."""
    back = -7 if x2 > x1 else 7
    head = f"M{x2:.1f} {y:.1f}l{back} -4v8z"
    return line(x1, y, x2 + back, y, stroke, **attributes) + f'<path d="{head}" fill="{stroke}"/>'


def card(width: float, height: float, parts: Iterable[str], size: int = 12) -> str:
    """The whole picture: its parts, on a card of its size.

    :param width: in pixels, as is `height`; a phone shows 360 of them without making them smaller.
    :param height: of the picture.
    :param parts: what is on the card, the undermost first.
    :param size: of the letters, in pixels.
    """
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="Helvetica,Arial,sans-serif" '
            f'font-size="{size}" fill="{INK}">',
            f'<rect width="{width}" height="{height}" fill="{CARD}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _shown(attributes: dict[str, str]) -> str:
    return "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())

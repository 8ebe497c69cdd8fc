"""Text for people: what somebody else wrote, made fit to be shown, and numbers in words."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Compiled when they are first needed.
_TITLE = r"(?is)<title[^>]*>(.*?)</title"
_NO_WORDS = r"(?is)<(script|style)\b.*?(</\1[^>]*>|$)|<[^>]*(>|$)"


def describe(value: object) -> str:
    """What an exception, or another object, says of itself; its type, if it fails to say anything.

    :param value: of any origin: one of the user's may raise an exception when it is shown.
    """
    try:
        return repr(value)
    except Exception:
        return type(value).__qualname__


def message_of(error: BaseException) -> str:
    """What an exception says, or if that is nothing, what it is.

    :param error: of any origin: one of the user's may raise an exception when it is shown.
    """
    try:
        return str(error) or describe(error)
    except Exception:
        return describe(error)


def count(number: float, noun: str) -> str:
    """A number with its noun, "1 second" or "2.5 seconds"; three decimals at most are shown.

    :param number: how many.
    :param noun: in the singular, of a word whose plural ends in "s".
    """
    shown = str(number)
    if isinstance(number, float):
        shown = f"{number:.3f}".rstrip("0").rstrip(".")
    return f"{shown} {noun}" if shown == "1" else f"{shown} {noun}s"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as people write them, "0-15, 18".

    :param numbers: in any order.
    """
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][-1] == number - 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    return ", ".join("-".join(map(str, ends)) for ends in found)


def duration(seconds: float) -> str:
    """Return a time as people say it, in its two largest units: "3 days 4 h" or "4 min 12 s".

    :param seconds: how many, 0 or more.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    if days >= 2:
        return f"{days} days {hours_of_day} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def gist(text: str) -> str:
    """Return what a person reads of a server's page: its title, or its words without the tags.

    :param text: the page, or its beginning; a text that is no HTML is returned as it is.
    """
    if not text.lstrip().startswith("<"):
        return text
    import html  # here: its table of names takes a while to load

    title = re.search(_TITLE, text)
    words = " ".join(html.unescape(title[1] if title else "").split())
    return words or " ".join(html.unescape(re.sub(_NO_WORDS, " ", text)).split())


def printable(text: str, limit: int | None = None) -> str:
    r"""Return a text with each character escaped that could do more than show itself.

    Peers choose what stands in a close reason or in an event: line breaks that forge a second line
    of a log, escape sequences of terminals, marks that turn the direction of the text after them.
    All of these, and whatever else is not printable, come out as ``\n``, ``\x1b``, ``\u202e``.

    :param text: of any origin.
    :param limit: how many characters of ``text`` to show at most; "..." stands for the rest.
        None shows them all.
    """
    if limit is not None and len(text) > limit:
        return printable(text[:limit]) + "..."
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def name_of(function: object) -> str:
    """A function's name for the log.

    :param function: of the user's; its attributes, too, are user code.
    """
    try:
        return getattr(function, "__qualname__", None) or describe(function)
    except Exception:  # an object of the user's whose __getattr__ fails
        return type(function).__qualname__

"""JSON by Python's own module, whichever module a user has chosen for events.

What the library itself writes, and what must be judged strictly, depends on no module of a user's.
``json`` takes a while to import, and is loaded by the first call: not every process that imports
the library makes a shard.
"""

from __future__ import annotations

from typing import Any, NoReturn


def decode(text: str) -> Any:
    """The value of a JSON text; NaN and Infinity are taken, too.

    :raises ValueError: if it is not JSON.
    :raises RecursionError: if it is nested too deeply.
    """
    import json

    return json.loads(text)


def decode_strictly(text: str) -> Any:
    """As :func:`decode`, but NaN and Infinity are no JSON: the Gateway would refuse them."""
    import json

    return json.loads(text, parse_constant=_refuse)


def encode(value: Any, *, ascii_only: bool = False) -> str:
    """The shortest JSON text of a value.

    :param ascii_only: True to escape all other characters.
    """
    import json

    return json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")

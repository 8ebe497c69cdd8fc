"""Payloads as text: JSON the way Discord writes it, and the names of opcodes."""

from __future__ import annotations

import json
from typing import Any

import ujson

from shardlib.gateway import Opcode


def encode(data: Any) -> bytes:
    """Return data as JSON the way Discord writes it: without spaces, characters unescaped.

    :param data: a value that JSON can express.
    :raises TypeError: if ``data`` holds something that JSON cannot express.
    :raises ValueError: if ``data`` holds NaN or an infinity.
    """
    try:
        text = ujson.dumps(data, ensure_ascii=False, escape_forward_slashes=False, allow_nan=False)
        return text.encode()
    except (UnicodeEncodeError, OverflowError):
        # UTF-8 cannot encode lone surrogates, so JSON must escape them. ujson refuses integers of
        # more than 64 bits.
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()


def opcode_name(opcode: int) -> str:
    """Return an opcode's documented name, with its number.

    :param opcode: the opcode, known or not.
    """
    try:
        return f"{Opcode(opcode).name} (op {int(opcode)})"
    except ValueError:
        return f"op {opcode}"

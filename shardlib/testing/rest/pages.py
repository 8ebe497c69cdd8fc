"""Lists that a client reads page by page, by ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

_T = TypeVar("_T")


def page(
    items: Sequence[_T],
    id_of: Callable[[_T], str],
    query: Mapping[str, Any],
    *,
    default: int,
    newest: bool = False,
) -> list[_T]:
    """Return the items that a query asks for, in their order.

    :param items: all items, in the order of their ids.
    :param id_of: returns the id of an item.
    :param query: may have ``before``, ``after`` and ``limit``.
    :param default: the limit, if the query has none.
    :param newest: whether the query without ``before`` and ``after`` asks for the last items, as
        for messages, instead of the first.
    """
    limit = query.get("limit", default)
    before, after = query.get("before"), query.get("after")
    found = [
        item
        for item in items
        if (before is None or int(id_of(item)) < int(before))
        and (after is None or int(id_of(item)) > int(after))
    ]
    from_the_end = before is not None or (newest and after is None)
    return found[-limit:] if from_the_end else found[:limit]

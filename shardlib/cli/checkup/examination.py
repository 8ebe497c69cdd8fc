"""The examination: all checks in their order, each skipped if it cannot succeed."""

from __future__ import annotations

from collections.abc import Iterator

from shardlib.cli.checkup.finding import Finding, Grade, skip_after
from shardlib.cli.checkup.machine import check_machine
from shardlib.cli.checkup.network import check_network
from shardlib.cli.checkup.session import check_bot, check_session
from shardlib.cli.checkup.way import Way


def examine(way: Way) -> Iterator[Finding]:
    """Check a way to the Gateway, and yield what each check finds as soon as it is found.

    :param way: how the bot reaches the Gateway.
    """
    untrusting = None
    for finding in check_machine(way):
        yield finding
        if finding.grade is Grade.FAILED:
            untrusting = untrusting or finding.name
    if untrusting == "Python":
        yield from skip_after("Extras", "Python has failed")
        return
    failed = yield from check_network(way, untrusting)
    refused, shards = yield from check_bot(way, failed)
    failed = failed or refused
    if failed is None:
        yield from check_session(way, shards)
    else:
        yield from skip_after("Session starts", f"{failed} has failed")

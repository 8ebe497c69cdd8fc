"""``shardlib doctor``: checks, step by step, what a bot needs to reach the Gateway."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator

from shardlib.cli.checkup.finding import Finding, Grade
from shardlib.cli.checkup.machine import check_machine
from shardlib.cli.checkup.network import check_network
from shardlib.cli.checkup.session import check_bot, check_session, skip_session
from shardlib.cli.checkup.way import Way
from shardlib.cli.errors import Failure, gateway_class
from shardlib.cli.terminal import DIM, GREEN, RED, YELLOW, Output
from shardlib.gateway import API_URL, GATEWAY_URL, Intents

_STYLES = {
    Grade.GOOD: GREEN,
    Grade.REMARK: YELLOW,
    Grade.FAILED: RED,
    Grade.SKIPPED: DIM,
}

_NAME_WIDTH = len("Session starts")
_GRADE_WIDTH = max(len(grade.value) for grade in Grade)


def run(arguments: Namespace) -> None:
    """Check, and print what each check has found. Ctrl-C ends the process meanwhile.

    :param arguments: the parsed arguments of ``shardlib doctor``.
    :raises Failure: if a check has failed; or if a package that ``--local`` needs is missing.
    :raises OSError: if standard output cannot be written.
    """
    gateway = gateway_class()(tls=True) if arguments.local else None
    output = Output(sys.stdout)
    findings = []
    with gateway or contextlib.nullcontext():
        if gateway is None:
            url = arguments.url or GATEWAY_URL
            api_url = arguments.api_url or (API_URL if arguments.url is None else None)
            token, ssl_context = os.environ.get("DISCORD_TOKEN") or None, None
        else:
            url, api_url = gateway.url, gateway.http_url
            token, ssl_context = gateway.token, gateway.ssl_context
        intents = arguments.intents or Intents.default()
        way = Way(url, api_url, token, intents, ssl_context, arguments.timeout)
        for finding in _check(way):
            findings.append(finding)
            if not arguments.json:
                output.write(_lines(finding, output))
    failed = [finding.name for finding in findings if finding.grade is Grade.FAILED]
    if arguments.json:
        listed = [{**finding._asdict(), "grade": finding.grade.value} for finding in findings]
        output.write(json.dumps({"good": not failed, "findings": listed}) + "\n")
    if failed:
        raise Failure(f"failed: {', '.join(failed)}")


def _check(way: Way) -> Iterator[Finding]:
    failed = None
    for checks in (check_machine, check_network, check_bot):
        for finding in checks(way):
            if finding.grade is Grade.FAILED:
                failed = failed or finding.name
            yield finding
    if failed is None:
        yield from check_session(way)
    else:
        yield from skip_session(f"{failed} has failed")


def _lines(finding: Finding, output: Output) -> str:
    style = _STYLES[finding.grade]
    grade = output.style(finding.grade.value.ljust(_GRADE_WIDTH), style)
    told = finding.told
    if output.is_terminal:  # in a pipe, for grep, a finding is one line
        told = _fill(told, _GRADE_WIDTH + 2 + _NAME_WIDTH + 2, output).lstrip()
    line = f"{grade}  {finding.name.ljust(_NAME_WIDTH)}  {told}\n"
    return line + (_fill(finding.hint, _GRADE_WIDTH + 2, output) + "\n" if finding.hint else "")


def _fill(text: str, indent: int, output: Output) -> str:
    """Break a text into indented lines as wide as the terminal. URLs and options stay whole.

    :param text: without line breaks.
    :param indent: columns that stay empty on the left.
    :param output: where the text is to be written.
    """
    return textwrap.fill(
        text,
        max(indent + 31, output.size[0]),
        initial_indent=" " * indent,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

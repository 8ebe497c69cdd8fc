"""``shardlib doctor``: checks, step by step, what a bot needs to reach the Gateway."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator

from shardlib.cli.checkup.finding import NAMES, Finding, Grade, skip_after
from shardlib.cli.checkup.machine import cannot_import
from shardlib.cli.environment import api_address, gateway_address, tell
from shardlib.cli.errors import Failure, gateway_class
from shardlib.cli.terminal import DIM, GREEN, RED, YELLOW, Output
from shardlib.gateway import API_URL, GATEWAY_URL, Intents
from shardlib.text import printable

_STYLES = {
    Grade.GOOD: GREEN,
    Grade.REMARK: YELLOW,
    Grade.FAILED: RED,
    Grade.SKIPPED: DIM,
}

_NAME_WIDTH = len("Session starts")
_GRADE_WIDTH = max(len(grade.value) for grade in Grade)


def run(arguments: Namespace) -> None:
    """Check, and print what each check has found. Ctrl-C ends the process, see ``cli.main``.

    :param arguments: the parsed arguments of ``shardlib doctor``.
    :raises UsageError: if DISCORD_GATEWAY or DISCORD_API is no URL.
    :raises Failure: if a check has failed.
    :raises SystemExit: with status 1 if the pipe that is printed to has lost its reader.
    :raises OSError: if standard output cannot be written.
    """
    output = Output(sys.stdout)
    findings = []
    try:
        for finding in _examine(arguments):
            findings.append(finding)
            if not arguments.json:
                output.write(_lines(finding, output))
        failed = [finding.name for finding in findings if finding.grade is Grade.FAILED]
        if arguments.json:
            listed = [{**finding._asdict(), "grade": finding.grade.value} for finding in findings]
            output.write(json.dumps({"good": not failed, "findings": listed}) + "\n")
    except BrokenPipeError:
        sys.exit(1)  # quietly; but nothing may take this for an end at which all was well
    if failed:
        raise Failure(f"failed: {', '.join(failed)}")


def _examine(arguments: Namespace) -> Iterator[Finding]:
    try:
        from shardlib.cli.checkup.examination import examine
        from shardlib.cli.checkup.hints import TOO_MANY_FILES, is_too_many_files
        from shardlib.cli.checkup.way import Way
    except ImportError as error:
        yield cannot_import(error)
        yield from skip_after("Python", "Python has failed")
        return
    intents = arguments.intents or Intents.default()
    if not arguments.local:
        gateway, api = gateway_address(arguments), api_address(arguments)
        tell(gateway, api)
        url = GATEWAY_URL if gateway is None else gateway.url
        # Discord must not be asked about the token of another gateway.
        otherwise = API_URL if gateway is None else None
        api_url = otherwise if api is None else api.url
        token = os.environ.get("DISCORD_TOKEN") or None
        yield from examine(Way(url, api_url, token, intents, None, arguments.timeout))
        return
    with contextlib.ExitStack() as stack:
        try:
            local = stack.enter_context(gateway_class()(tls=True))
            url, api_url, token = local.url, local.http_url, local.token
            way = Way(url, api_url, token, intents, local.ssl_context, arguments.timeout)
        except (Failure, OSError) as error:
            hint = TOO_MANY_FILES if is_too_many_files(error) else ""
            yield Finding("Local gateway", Grade.FAILED, printable(str(error)), hint)
            for name in NAMES:
                yield Finding(name, Grade.SKIPPED, "Local gateway has failed")
            return
        yield from examine(way)


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

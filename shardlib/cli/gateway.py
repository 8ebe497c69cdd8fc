"""``shardlib gateway``: a local gateway as a program, for clients in any language."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING

from shardlib.cli.errors import Failure, UsageError, gateway_class
from shardlib.cli.shutdown import Shutdown
from shardlib.cli.terminal import Output, clip, clock

if TYPE_CHECKING:
    from shardlib.cli.faults import Script
    from shardlib.testing import LocalGateway

LINE_INTERVAL = 1.0  # seconds between two live lines of a terminal
PLAIN_LINE_INTERVAL = 60.0  # and in a pipe or a file, while no client comes or goes


def run(arguments: Namespace) -> None:
    """Serve until Ctrl-C, or until the reader of standard output has gone.

    :param arguments: of ``shardlib gateway``.
    :raises UsageError: if the file of faults cannot be used.
    :raises Failure: if the gateway cannot be started.
    """
    make = gateway_class()
    script = _script(arguments.faults)
    output = Output(sys.stdout)
    shutdown = Shutdown()
    try:
        with contextlib.ExitStack() as stack:
            try:
                gateway = stack.enter_context(
                    make(
                        port=arguments.port,
                        tls=arguments.tls,
                        guilds=arguments.guilds,
                        seed=arguments.seed,
                        shards=arguments.shards,
                        max_concurrency=arguments.max_concurrency,
                    )
                )
            except OSError as error:
                raise Failure(f"port {arguments.port} cannot be used: {error.strerror}") from error
            except ImportError as error:  # TLS needs one package more
                raise Failure(str(error)) from error
            gateway.token = arguments.token or gateway.world.make_token(arguments.seed)
            certificate = stack.enter_context(_certificate(gateway)) if arguments.tls else None
            output.write(_introduction(gateway, certificate))
            script.inject(gateway)
            if arguments.rate:
                gateway.traffic(arguments.rate)
            _watch(gateway, script, output, shutdown)
    except BrokenPipeError:
        pass  # the reader of the pipe has seen enough


def _script(path: str | None) -> Script:
    from shardlib.cli.faults import Script  # needs websockets, as gateway_class() has checked

    if path is None:
        return Script("[]")
    try:
        with open(path, encoding="utf-8") as file:
            return Script(file.read())
    except OSError as error:
        raise UsageError(f"--faults: {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--faults: {path}: {error}") from error


@contextlib.contextmanager
def _certificate(gateway: LocalGateway) -> Iterator[str]:
    """The authority's certificate in a file, for clients to trust."""
    with tempfile.NamedTemporaryFile(prefix="shardlib-", suffix=".pem") as file:
        file.write(gateway.ca_certificate)
        file.flush()
        yield file.name


def _introduction(gateway: LocalGateway, certificate: str | None) -> str:
    lines = [
        f"Gateway      {gateway.url}",
        f"HTTP API     {gateway.http_url}",
        f"Token        {gateway.token}",
    ]
    command = f"DISCORD_TOKEN={gateway.token} shardlib tail --url {gateway.url}"
    if certificate is not None:
        lines.append(f"Certificate  {certificate} (of the authority to trust)")
        command = f"SSL_CERT_FILE={certificate} {command}"
    return "\n".join([*lines, "", "Try it from another terminal:", "", f"  {command}", "", ""])


def _watch(gateway: LocalGateway, script: Script, output: Output, shutdown: Shutdown) -> None:
    """Let the faults strike, and print what goes on, until the command is to end."""
    started = told = time.monotonic()
    told_of: tuple[int, int] | None = None
    events = 0
    while True:
        now = time.monotonic()
        for fault in script.strike(gateway, now - started):
            output.write(("\r" if output.is_terminal else "") + f"{clock(time.time())}  {fault}\n")
        present = (len(gateway.connections), len(gateway.sessions))
        interval = PLAIN_LINE_INTERVAL
        if output.is_terminal:
            interval = LINE_INTERVAL
        if present != told_of or now - told >= interval:
            dispatched = gateway.events_dispatched
            rate = (dispatched - events) / max(now - told, LINE_INTERVAL)
            _tell(gateway, present, rate, output)
            told, told_of, events = now, present, dispatched
        due = script.next_due()
        pause = LINE_INTERVAL
        if due is not None:
            pause = max(0.0, min(pause, started + due - time.monotonic()))
        if shutdown.wait(pause):
            break
    if output.is_terminal:
        output.write("\n")


def _tell(gateway: LocalGateway, present: tuple[int, int], rate: float, output: Output) -> None:
    line = (
        f"{clock(time.time())}  connections {present[0]}  sessions {present[1]}  "
        f"events/s {rate:.1f}  sent {size(gateway.bytes_sent)}  "
        f"received {size(gateway.bytes_received)}"
    )
    if output.is_terminal:
        width = shutil.get_terminal_size().columns - 1
        output.write("\r" + clip(line, width).ljust(width))
    else:
        output.write(line + "\n")


def size(number: float) -> str:
    """A number of bytes, for people, as "1.5 kB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"

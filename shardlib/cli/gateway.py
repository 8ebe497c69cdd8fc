"""``shardlib gateway``: a local gateway as a program, for clients in any language."""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from shardlib.cli.errors import Failure, UsageError, gateway_class
from shardlib.cli.shutdown import Shutdown
from shardlib.cli.statusline import StatusLine
from shardlib.cli.talk import Talk
from shardlib.cli.terminal import END_TIMEOUT, Output, clock

if TYPE_CHECKING:
    from shardlib.cli.faults import Script
    from shardlib.testing import LocalGateway

# Seconds between two updates of the status line, in a terminal, and in a pipe or a file as long as
# the numbers of connections and sessions stay the same.
LINE_INTERVAL = 1.0
PLAIN_LINE_INTERVAL = 60.0


def run(arguments: Namespace) -> None:
    """Run a gateway until Ctrl-C, or until the pipe on standard output has no reader.

    :param arguments: the parsed arguments of ``shardlib gateway``.
    :raises UsageError: if the file of faults cannot be read or has an invalid fault, or if the
        recording cannot be played.
    :raises Failure: if the gateway cannot start.
    :raises OSError: if standard output cannot be written.
    """
    make_gateway = gateway_class()
    options = _options_of_replay(arguments)
    script = _read_script(arguments.faults)
    guilds = max(3, arguments.shards) if arguments.guilds is None else arguments.guilds
    output = Output(sys.stdout)
    shutdown = Shutdown()
    with contextlib.ExitStack() as stack:
        try:
            gateway = stack.enter_context(
                make_gateway(
                    port=arguments.port,
                    tls=arguments.tls,
                    guilds=guilds,
                    seed=arguments.seed,
                    shards=arguments.shards,
                    max_concurrency=arguments.max_concurrency,
                    identify_interval=arguments.identify_interval,
                    session_start_limit=arguments.session_start_limit,
                    rate_limits=arguments.rate_limits,
                    **options,
                )
            )
        except ValueError as error:  # the file is no recording, or damaged from its beginning
            raise UsageError(f"--replay: {error}") from error
        except OSError as error:
            if error.filename is not None:
                raise UsageError(f"--replay: {error.filename}: {error.strerror}") from error
            raise Failure(f"port {arguments.port} cannot be used: {error.strerror}") from error
        except ImportError as error:  # TLS needs the package trustme
            raise Failure(str(error)) from error
        gateway.token = arguments.token or gateway.world.make_token(arguments.seed)
        certificate = stack.enter_context(_certificate_file(gateway)) if arguments.tls else None
        rate = arguments.rate
        if rate is None:
            rate = 10.0 if gateway.replay is None else 0.0
        printer = _Printer(gateway, _introduction(gateway, certificate), script, output, shutdown)
        script.inject(gateway)
        if rate:
            gateway.traffic(rate)
        printer.start()
        try:
            shutdown.wait()
        finally:
            printer.stop()


def _options_of_replay(arguments: Namespace) -> dict[str, Any]:
    if arguments.replay is None:
        if arguments.speed is not None:
            raise UsageError("--speed goes with --replay")
        return {}
    if arguments.guilds is not None:
        raise UsageError(
            "--guilds does not go with --replay: the guilds are those of the recording"
        )
    speed = 1.0 if arguments.speed is None else arguments.speed
    return {"replay": arguments.replay, "speed": None if speed == math.inf else speed}


def _read_script(path: str | None) -> Script:
    # Not at the top: the import needs websockets, whose absence gateway_class() reports.
    from shardlib.cli.faults import Script

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
def _certificate_file(gateway: LocalGateway) -> Iterator[str]:
    """Write the authority's certificate to a temporary file; yield the file's path."""
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
    if gateway.shards > 1:
        command += f" --api-url {gateway.http_url} --shards auto"
    if certificate is not None:
        lines.append(f"Certificate  {certificate} (of the authority to trust)")
        command = f"SSL_CERT_FILE={certificate} {command}"
    lines += ["", "Try it from another terminal:", "", f"  {command}", ""]
    if _is_terminal(sys.stdin) and gateway.world.guilds:
        lines += ["Type a message to the bot, or one of its commands, as /name option=value.", ""]
    return "\n".join([*lines, ""])


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


class _Printer:
    """Prints what there is to tell, and lets faults strike when they are due, on its own thread.

    The main thread waits for signals, which must end the command also if the output takes no text.
    Only the main thread may make a printer.

    :param gateway: the gateway.
    :param introduction: the first text to print.
    :param script: the faults.
    :param output: standard output.
    :param shutdown: ends the command.
    """

    def __init__(
        self,
        gateway: LocalGateway,
        introduction: str,
        script: Script,
        output: Output,
        shutdown: Shutdown,
    ) -> None:
        self._gateway = gateway
        self._introduction = introduction
        self._script = script
        self._output = output
        self._shutdown = shutdown
        self._status = StatusLine(output, is_typed_below=_is_terminal(sys.stdin))
        self._talk = Talk(gateway, self._status)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="printing", daemon=True)

    def start(self) -> None:
        """Begin to print, and to read what is typed."""
        self._thread.start()

    def stop(self) -> None:
        """Print no more. Blocks for a moment."""
        self._stopping.set()
        self._thread.join(END_TIMEOUT)

    def _run(self) -> None:
        try:
            self._output.write(self._introduction)
            self._talk.start()
            self._watch()
            self._status.end()
        except BrokenPipeError:  # the pipe has no reader any more: a usual end of the command
            self._shutdown.come()
        except Exception as error:
            self._shutdown.come(error)

    def _watch(self) -> None:
        """Let faults strike, and print the status, until the command ends."""
        gateway, status = self._gateway, self._status
        started = printed_at = time.monotonic()
        printed: tuple[int, int] | None = None
        printed_events = 0
        replay = gateway.replay
        pause = 0.0
        while not self._stopping.wait(pause):
            now = time.monotonic()
            if replay is not None and replay.finished:
                end = replay.error or "the recording was played to its end"
                status.print(f"{clock(time.time())}  {end}")
                replay = None
            for fault in self._script.strike(gateway, now - started):
                status.print(f"{clock(time.time())}  {fault}")
            clients = (len(gateway.connections), len(gateway.sessions))
            interval = LINE_INTERVAL if self._output.is_terminal else PLAIN_LINE_INTERVAL
            if clients != printed or now - printed_at >= interval:
                events = gateway.events_dispatched
                rate = (events - printed_events) / max(now - printed_at, LINE_INTERVAL)
                status.show(_status(gateway, clients, rate))
                printed_at, printed, printed_events = now, clients, events
            due = self._script.next_due()
            pause = LINE_INTERVAL
            if due is not None:
                pause = max(0.0, min(pause, started + due - time.monotonic()))


def _status(gateway: LocalGateway, clients: tuple[int, int], rate: float) -> str:
    connections, sessions = clients
    return (
        f"{clock(time.time())}  connections {connections}  sessions {sessions}  "
        f"events/s {rate:.1f}  sent {size(gateway.bytes_sent)}  "
        f"received {size(gateway.bytes_received)}"
    )


def size(number: float) -> str:
    """Return a number of bytes as people read it, for instance "1.5 kB".

    :param number: how many bytes.
    """
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000 or unit == "GB":
            break
        number /= 1000
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"

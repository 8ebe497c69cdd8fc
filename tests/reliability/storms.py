"""Storms: calls of a shard from every place at every moment. None may hang, or harm the shard.

There are two kinds. An *interrupt* is a signal that a trace function raises at one chosen
instruction of the library, or of ``threading.py`` under it, while an operation runs on the main
thread: Ctrl-C, or a signal whose handler calls a method of the shard. An *interleaving* is a number
of threads, and the callbacks, that all call random methods of one shard while the interpreter
switches threads as often as it can.

A child process makes the tries. If one step takes longer than :data:`TIME_LIMIT`, the child prints
where its threads are, and ends; the parent notes that, and goes on with the next try in another
child. The storms use only the public names of the library.

``python -m benchmarks.interrupts`` tries every point once; ``test_storms.py`` tries some.
"""

from __future__ import annotations

import contextlib
import dis
import faulthandler
import functools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import shardlib
from shardlib import Backoff, IdentifyGate, Intents, Shard, ShardError, ShardState
from tests.quick_peer import QuickPeer
from tests.reliability.support import CriticalRecords
from tests.shards import make_shard
from tests.support import TOKEN, wait_until

TIME_LIMIT = 20.0  # seconds; a step that takes longer counts as a hang
CLOSE_TIMEOUT = 1.0  # seconds; the option of the shard
SLACK = 5.0  # seconds that a busy machine may add to CLOSE_TIMEOUT
ARRIVALS = 2  # how many passes of a loop make a point of the same instruction

CTRL_C = "Ctrl-C"

# What the methods are documented to raise, on whichever thread the caller is.
DOCUMENTED = (ShardError, TimeoutError)

#: For a test that traces instructions in its own process. Since Python 3.12 all threads share what
#: tracing changes in a function: beside other threads CPython 3.12.1 has crashed, and 3.13.0 has
#: passed an instruction over in silence.
traces_instructions = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="tracing is of one thread alone only until Python 3.11"
)

_PYTHON_3_10 = sys.version_info < (3, 11)
_ROOT = Path(__file__).parents[2]
_LIBRARY = str(Path(shardlib.__file__).parent)


# What is called


class Ground:
    """One shard and its peer, READY before each operation and again after it."""

    def __init__(self, peer: QuickPeer) -> None:
        self.peer = peer
        self.unexpected: list[str] = []
        self.operation_ended = False
        self._helpers: list[threading.Thread] = []
        logger = logging.getLogger("storms")
        logger.propagate = False
        logger.handlers = [CriticalRecords(self.unexpected)]
        self.shard = make_shard(
            identify_gate=IdentifyGate(interval=0.001, slack=0, daily_limit=10**9),
            backoff=Backoff(0.01, 0.02),
            connect_timeout=2.0,
            send_timeout=2.0,
            close_timeout=CLOSE_TIMEOUT,
            logger=logger,
        )
        threading.excepthook = self._note_thread_exception
        sys.unraisablehook = self._note_unraisable

    def _note_thread_exception(self, arguments: threading.ExceptHookArgs) -> None:
        name = arguments.thread.name if arguments.thread else "a thread"
        error = arguments.exc_value
        assert error is not None
        self.unexpected.append(f"{name} ended: {_formatted(error)}")

    def _note_unraisable(self, arguments: Any) -> None:
        self.unexpected.append(f"in {arguments.object!r}: {_formatted(arguments.exc_value)}")

    def help(self, act: Callable[[], object]) -> None:
        """Call a function on another thread during the operation; ignore its documented errors."""

        def run() -> None:
            with contextlib.suppress(*DOCUMENTED):
                act()

        helper = threading.Thread(target=run, name="helper", daemon=True)
        tracing = sys.gettrace()
        sys.settrace(None)  # no point of the library: here the harness calls threading.py
        helper.start()
        sys.settrace(tracing)
        self._helpers.append(helper)

    def disconnect_when_ready(self) -> None:
        """Disconnect whenever the shard is READY, until the operation has ended."""
        while not self.operation_ended:
            if self.shard.state is ShardState.READY:
                self.shard.disconnect()
            time.sleep(0.001)

    def prepare(self, stage: str) -> None:
        """Bring the shard from READY to the stage in which the operation begins."""
        self.operation_ended = False
        if stage == "ready":
            return
        self.shard.disconnect()
        if stage == "identifying":
            self.peer.is_late = True
            self.shard.connect(self.peer.url)
        elif stage == "connecting":
            self.peer.is_stalled = True
            self.help(lambda: self.shard.connect(self.peer.url))
            wait_until(lambda: self.peer.has_stalled_client)

    def restore(self) -> None:
        """Close the shard on another thread, then use it again; note each failure as unexpected."""
        self.operation_ended = True
        self.peer.is_late = self.peer.is_stalled = False
        began = time.monotonic()
        closing = threading.Thread(target=self.shard.disconnect, name="closing", daemon=True)
        closing.start()
        closing.join()
        took = time.monotonic() - began
        if took > CLOSE_TIMEOUT + SLACK:
            self.unexpected.append(f"disconnect() on another thread took {took:.1f} s")
        if self.shard.socket_thread is not None or self.shard.socket_disconnecting:
            self.unexpected.append(
                f"after disconnect() {self.shard} has the reader {self.shard.socket_thread}"
            )
        self._expect_no_thread()
        for helper in self._helpers:
            helper.join()
        self._helpers.clear()
        self.shard.connect(self.peer.url)
        self.shard.wait_until_ready(10)
        self.shard.update_presence(status="idle")
        _on_and_off(self.shard)
        _look(self.shard)

    def _expect_no_thread(self) -> None:
        """Wait until no thread of a shard is alive; note each that stays alive as unexpected."""
        deadline = time.monotonic() + SLACK
        while left := [each for each in threading.enumerate() if each.name.startswith("shard-")]:
            if time.monotonic() > deadline:
                frames = sys._current_frames()
                for thread in left:
                    frame = frames.get(thread.ident or 0)  # None before a thread begins, and after
                    stack = "".join(traceback.format_stack(frame)) if frame else ""
                    self.unexpected.append(f"after disconnect() {thread.name} lives:\n{stack}")
                return
            time.sleep(0.0005)


def _on_and_off(shard: Shard) -> None:
    """Register a listener, and remove it."""

    def listener(shard: Shard, data: object) -> None:
        pass

    shard.on("TICK")(listener)
    shard.off("TICK", listener)


def _look(shard: Shard) -> None:
    """Read the properties of a shard."""
    assert repr(shard) and shard.stats.messages >= 0 and isinstance(shard.zlib_buffer, bytes)
    for name in ("state", "session", "socket_active", "socket_reconnecting", "heartbeat_ping"):
        getattr(shard, name)


def _take(shard: Shard, event: str, timeout: float | None = None) -> None:
    """Iterate over some events."""
    with shard.events(event, timeout=timeout, maxsize=1) as events:
        for _ in range(2):
            next(events, None)


def _poll(shard: Shard) -> None:
    with shard.events("TICK", maxsize=1) as events:
        events.poll()


def _enter_and_exit(shard: Shard) -> None:
    with shard:
        pass


# The calls of signal handlers, and of the threads of an interleaving. None waits for long.
METHODS: dict[str, Callable[[Ground], object]] = {
    "connect": lambda ground: ground.shard.connect(ground.peer.url),
    "start": lambda ground: ground.shard.start(ground.peer.url),
    "disconnect": lambda ground: ground.shard.disconnect(),
    "disconnect(4000)": lambda ground: ground.shard.disconnect(4000),
    "reconnect": lambda ground: ground.shard.reconnect(),
    "resume": lambda ground: ground.shard.resume(),
    "reinstantiate": lambda ground: ground.shard.reinstantiate(),
    "identify": lambda ground: ground.shard.identify(),
    "update_presence": lambda ground: ground.shard.update_presence(timeout=0.2),
    "send": lambda ground: ground.shard.send('{"op":3,"d":{"status":"dnd"}}', timeout=0.2),
    "heartbeat": lambda ground: ground.shard.heartbeat(requested=True),
    "heartbeat_in": lambda ground: ground.shard.heartbeat_in(1000),
    "wait_until_ready": lambda ground: ground.shard.wait_until_ready(0.3),
    "wait_for": lambda ground: ground.shard.wait_for("NEVER", timeout=0.02),
    "join": lambda ground: ground.shard.join(0.02),
    "events": lambda ground: _take(ground.shard, "NEVER", timeout=0.02),
    "poll": lambda ground: _poll(ground.shard),
    "fetch": lambda ground: ground.shard.fetch_channel_info(1, timeout=0.02),
    "on and off": lambda ground: _on_and_off(ground.shard),
    "look": lambda ground: _look(ground.shard),
    "Shard": lambda ground: Shard(TOKEN, Intents.all()),
    "with": lambda ground: _enter_and_exit(ground.shard),
}


@dataclass(frozen=True)
class Operation:
    """What the main thread does when the signal comes.

    :param stage: how far the shard is when the operation begins: "closed", "connecting" (the peer
        does not answer the handshake), "identifying" (READY comes in some milliseconds), "ready".
    :param act: the operation. It may wait without a timeout only for what is sure to come.
    """

    stage: str
    act: Callable[[Ground], object]


def _run_forever(ground: Ground) -> None:
    ground.help(ground.disconnect_when_ready)
    ground.shard.run_forever(ground.peer.url)


OPERATIONS: dict[str, Operation] = {
    "connect": Operation("closed", METHODS["connect"]),
    "start": Operation("closed", METHODS["start"]),
    "run_forever": Operation("closed", _run_forever),
    "Shard": Operation("ready", METHODS["Shard"]),
    "disconnect while connecting": Operation("connecting", METHODS["disconnect"]),
    "wait_until_ready while connecting": Operation(
        "connecting", lambda ground: ground.shard.wait_until_ready(0.02)
    ),
    "wait_until_ready": Operation("identifying", lambda ground: ground.shard.wait_until_ready()),
    "send before READY": Operation("identifying", METHODS["update_presence"]),
    "reconnect before READY": Operation("identifying", METHODS["reconnect"]),
    "disconnect before READY": Operation("identifying", METHODS["disconnect"]),
    "disconnect": Operation("ready", METHODS["disconnect"]),
    "disconnect(4000)": Operation("ready", METHODS["disconnect(4000)"]),
    "with": Operation("ready", METHODS["with"]),
    "reconnect": Operation("ready", METHODS["reconnect"]),
    "resume": Operation("ready", METHODS["resume"]),
    "reinstantiate": Operation("ready", METHODS["reinstantiate"]),
    "identify": Operation("ready", METHODS["identify"]),
    "send": Operation("ready", METHODS["send"]),
    "update_presence": Operation("ready", METHODS["update_presence"]),
    "heartbeat": Operation("ready", METHODS["heartbeat"]),
    "heartbeat_in": Operation("ready", METHODS["heartbeat_in"]),
    "wait_for": Operation("ready", lambda ground: ground.shard.wait_for("TICK")),
    "wait_for, in vain": Operation(
        "ready", lambda ground: ground.shard.wait_for("NEVER", timeout=0.02)
    ),
    "events": Operation("ready", lambda ground: _take(ground.shard, "TICK")),
    "events, in vain": Operation("ready", METHODS["events"]),
    "poll": Operation("ready", METHODS["poll"]),
    "fetch, in vain": Operation("ready", METHODS["fetch"]),
    "join, in vain": Operation("ready", lambda ground: ground.shard.join(0.02)),
    "on and off": Operation("ready", METHODS["on and off"]),
    "look": Operation("ready", METHODS["look"]),
}


# Where a signal comes


@dataclass(frozen=True)
class Spot:
    """One instruction of the library or of ``threading.py``, reached for the n-th time.

    :param file: name of the file, without its folders.
    :param function: name of the function.
    :param first_line: first line of the function, since several functions have the same name.
    :param line: line of the instruction.
    :param offset: offset of the instruction in the bytecode of the function.
    :param arrival: how often the operation has then reached the instruction, from 1.
    """

    file: str
    function: str
    first_line: int
    line: int
    offset: int
    arrival: int


@dataclass(frozen=True)
class Point:
    """An interrupt: the operation, where the signal comes, and what the signal does.

    :param interrupt: :data:`CTRL_C`, or the name of the method that the handler calls.
    """

    operation: str
    interrupt: str
    spot: Spot

    def __str__(self) -> str:
        spot = self.spot
        where = f"{spot.file}:{spot.line} {spot.function} +{spot.offset} #{spot.arrival}"
        return f"{self.operation} | {self.interrupt} | {where}"


@functools.cache
def _instructions(code: CodeType) -> dict[int, dis.Instruction]:
    return {each.offset: each for each in dis.get_instructions(code)}


@functools.cache
def _lines(code: CodeType) -> dict[int, int]:
    """The line of each instruction, by offset."""
    return {
        offset: line or code.co_firstlineno
        for start, end, line in code.co_lines()
        for offset in range(start, end, 2)
    }


# C functions that wait, and meanwhile let Python run signal handlers: the names of the attributes
# through which the library calls them.
_BLOCKING = frozenset(("acquire", "get", "select", "poll", "recv", "recv_into", "send", "sleep"))


@functools.cache
def _blocking_lines(code: CodeType) -> frozenset[int]:
    lines = _lines(code)
    return frozenset(
        lines[each.offset]
        for each in _instructions(code).values()
        if each.opname in ("LOAD_METHOD", "LOAD_ATTR") and each.argval in _BLOCKING
    )


# The beginnings of the names of instructions that touch nothing but the variables and the stack of
# the running function (and names of modules, which no method changes). A handler that runs before
# such an instruction sees and does the same as a handler before the next one, so only the next one
# is tried.
_PRIVATE = (
    "CACHE",
    "COPY",
    "DUP_TOP",
    "EXTENDED_ARG",
    "JUMP",
    "KW_NAMES",
    "LOAD_CONST",
    "LOAD_FAST",
    "LOAD_GLOBAL",
    "LOAD_SMALL_INT",
    "NOP",
    "NOT_TAKEN",
    "POP_BLOCK",
    "POP_JUMP",
    "PRECALL",
    "PUSH_NULL",
    "RESUME",
    "RETURN",
    "ROT",
    "STORE_FAST",
    "SWAP",
)


def _is_call(name: str) -> bool:
    return name.startswith("CALL") and not name.startswith("CALL_INTRINSIC")


class _Frame:
    """What the tracer knows of one running function of the library or of ``threading.py``."""

    def __init__(self) -> None:
        self.previous: int | None = None  # offset of the instruction before; None at the entry
        self.raised = False  # that instruction raised an exception
        self.called_python = False  # that instruction called a function written in Python


def _can_run_handlers(code: CodeType, offset: int, frame: _Frame) -> bool:
    """Tell if CPython itself may run a signal's handler right before an instruction.

    A trace function can raise at any instruction, CPython runs handlers at few: at a function's
    entry, after a jump backwards, after a call, and inside C functions that wait. It never does so
    between the ``__enter__`` of ``with lock:`` and the body, nor on the way from the body to
    ``__exit__``; a KeyboardInterrupt there would accuse code that is right. (From Python 3.14 on
    ``__enter__`` is an ordinary CALL, and CPython does look for signals after it.) Python 3.10
    looks for signals after every jump that is taken and after a caught exception, too, but not
    right before ``try`` and ``with``. From 3.11 on CPython does not look after a call of a Python
    function, which has looked after its own last call; after a call of a class it does.
    """
    instructions = _instructions(code)
    name = instructions[offset].opname
    if name in ("SETUP_WITH", "BEFORE_WITH"):  # __enter__ of a lock waits, and a handler may raise
        return True
    if _is_call(name) and _lines(code)[offset] in _blocking_lines(code):
        return True
    if _PYTHON_3_10 and name == "SETUP_FINALLY":
        return False
    if frame.previous is None:
        return True
    if frame.raised:
        return _PYTHON_3_10
    before = instructions[frame.previous].opname
    if _PYTHON_3_10:
        return _is_call(before) or ("JUMP" in before and offset != frame.previous + 2)
    if _is_call(before):
        return not frame.called_python
    return before == "RESUME" or ("BACKWARD" in before and "NO_INTERRUPT" not in before)


Visit = Callable[[FrameType, bool], None]


class Tracer:
    """Calls a function before each instruction of the library and ``threading.py`` on this thread.

    :param visit: called with the frame, and whether CPython might run a signal's handler there.
    :param wanted: name and first line of the only function to trace; None to trace all.
    """

    def __init__(self, visit: Visit, wanted: tuple[str, int] | None = None) -> None:
        self._visit = visit
        self._wanted = wanted
        self._frames: dict[FrameType, _Frame] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Trace the code inside the block."""
        # Python 3.12 sends these events only for frames entered after the attribute was once set.
        sys._getframe().f_trace_opcodes = True
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)
            self._frames.clear()

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if (
            frame.f_back in self._frames and code.co_name != "__init__"
        ):  # C code of the class calls that
            self._frames[frame.f_back].called_python = True
        if self._wanted not in (None, (code.co_name, code.co_firstlineno)) or not _is_ours(code):
            return None
        self._frames[frame] = _Frame()
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        frame.f_trace = self._local  # without this, Python 3.13 traces only from the next call on
        return self._local

    def _local(self, frame: FrameType, event: str, argument: Any) -> Any:
        known = self._frames.get(frame)
        if known is None:
            return None
        if event == "opcode":
            visitable = _can_run_handlers(frame.f_code, frame.f_lasti, known)
            known.previous, known.raised, known.called_python = frame.f_lasti, False, False
            self._visit(frame, visitable)
        elif event == "exception":
            known.raised = True
        elif event == "return":
            del self._frames[frame]
        return self._local


@functools.cache
def _is_ours(code: CodeType) -> bool:
    return code.co_filename == threading.__file__ or os.path.dirname(code.co_filename) == _LIBRARY


def list_spots(act: Callable[[], object]) -> tuple[list[Spot], list[Spot]]:
    """Run a function; return the spots at which to try a handler, and those for Ctrl-C."""
    found: tuple[list[Spot], list[Spot]] = [], []
    counts: tuple[Counter[tuple[CodeType, int]], ...] = Counter(), Counter()

    def visit(frame: FrameType, can_run_handlers: bool) -> None:
        code, offset = frame.f_code, frame.f_lasti
        is_private = _instructions(code)[offset].opname.startswith(_PRIVATE)
        file, line = os.path.basename(code.co_filename), _lines(code)[offset]
        for number, is_spot in enumerate((not is_private, can_run_handlers)):
            if is_spot:
                counts[number][code, offset] += 1
                arrival = counts[number][code, offset]
                if arrival <= ARRIVALS:
                    spot = Spot(file, code.co_name, code.co_firstlineno, line, offset, arrival)
                    found[number].append(spot)

    with contextlib.suppress(*DOCUMENTED), Tracer(visit).running():
        act()
    return found


class Interrupt:
    """Raises a signal, once, when this thread reaches a spot.

    :param spot: one that :func:`list_spots` has returned.
    :param is_ctrl_c: True to raise SIGINT, and only if CPython may run a handler there; False to
        raise SIGTERM.
    """

    def __init__(self, spot: Spot, is_ctrl_c: bool) -> None:
        self._spot = spot
        self._is_ctrl_c = is_ctrl_c
        self._arrivals_left = spot.arrival
        #: True once the signal was raised.
        self.is_done = False

    def running(self) -> AbstractContextManager[None]:
        """Interrupt the code inside the block."""
        return Tracer(self._visit, (self._spot.function, self._spot.first_line)).running()

    def _visit(self, frame: FrameType, can_run_handlers: bool) -> None:
        if (
            self.is_done
            or frame.f_lasti != self._spot.offset
            or os.path.basename(frame.f_code.co_filename) != self._spot.file
            or (self._is_ctrl_c and not can_run_handlers)
        ):
            return
        self._arrivals_left -= 1
        if not self._arrivals_left:
            self.is_done = True
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT if self._is_ctrl_c else signal.SIGTERM)


def press_ctrl_c(spot: Spot, act: Callable[[], object]) -> bool:
    """Call a function, and press Ctrl-C at one of its instructions. True if that was raised."""
    try:
        with Interrupt(spot, is_ctrl_c=True).running():
            act()
    except KeyboardInterrupt:
        return True
    return False


def _try_point(ground: Ground, point: Point) -> bool:
    """Interrupt an operation; return True if the operation reached the point at all."""
    operation = OPERATIONS[point.operation]
    interrupt = Interrupt(point.spot, point.interrupt == CTRL_C)

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            METHODS[point.interrupt](ground)
        except DOCUMENTED:
            pass
        except Exception as error:
            ground.unexpected.append(f"in the handler: {_formatted(error)}")

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupted = False
    try:
        with interrupt.running():
            operation.act(ground)
    except DOCUMENTED:
        pass
    except KeyboardInterrupt:
        interrupted = True
    except Exception as error:
        ground.unexpected.append(f"in the operation: {_formatted(error)}")
    hidden = interrupt.is_done and not interrupted and point.operation != "run_forever"
    if point.interrupt == CTRL_C and hidden:
        ground.unexpected.append("no KeyboardInterrupt came out of the operation")
    return interrupt.is_done


# Threads and callbacks at once

_THREADS = 4
_CALLS = 25  # of each thread in a round
_CLOSING = ("disconnect", "disconnect(4000)", "with")
_CALLBACKS = ("connected", "ready", "reconnected", "disconnected", "dispatch", "closed")


class _Round:
    """Threads and callbacks that call random methods of a shard, which is READY at the beginning.

    :param progress: called whenever another call has returned, so that none counts as a hang.
    """

    def __init__(self, ground: Ground, seed: str, progress: Callable[[], None]) -> None:
        self._ground = ground
        self._seed = seed
        self._progress = progress
        self._calls = 0
        self._callback_dice = random.Random(f"{seed}/callbacks")
        self._is_over = False  # then callbacks call no method any more
        self._in_callback = False

    def run(self) -> None:
        """Go through the round; note on the ground what was unexpected."""
        shard = self._ground.shard
        dice = random.Random(self._seed)
        self._ground.peer.is_late = dice.random() < 0.5
        for name in _CALLBACKS:
            setattr(shard, f"on_socket_{name}", self._in_a_callback)
        threads = [
            threading.Thread(target=self._use, args=(number,), name=f"user-{number}", daemon=True)
            for number in range(_THREADS)
        ]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        for wait in (shard.join, shard.wait_until_ready, lambda: shard.wait_for("NEVER")):
            self._ground.help(functools.partial(self._wait_again_and_again, wait))
        for thread in threads:
            thread.start()
        seen = -1
        while any(thread.is_alive() for thread in threads):
            if self._calls != seen:
                seen = self._calls
                self._progress()
            self._ground.peer.is_stalled = dice.random() < 0.3
            time.sleep(0.01)
        self._is_over = True
        wait_until(lambda: not self._in_callback, TIME_LIMIT, "the callbacks to return")
        sys.setswitchinterval(interval)
        for name in _CALLBACKS:
            setattr(shard, f"on_socket_{name}", None)

    def _use(self, number: int) -> None:
        dice = random.Random(f"{self._seed}/{number}")
        connecting = ("connect", "connect", "connect", "disconnect", "disconnect(4000)")
        for _ in range(_CALLS):
            self._call(dice.choice(tuple(METHODS) if number else connecting))

    def _wait_again_and_again(self, wait: Callable[[], object]) -> None:
        """Wait without a timeout, again after each end of a life; restore() ends the last wait."""
        while not self._is_over:
            with contextlib.suppress(*DOCUMENTED):
                wait()
            time.sleep(0.001)

    def _in_a_callback(self, shard: Shard, *arguments: object) -> None:
        self._in_callback = True
        try:
            if not self._is_over and self._callback_dice.random() < 0.3:
                self._call(self._callback_dice.choice(list(METHODS)))
        finally:
            self._in_callback = False

    def _call(self, name: str) -> None:
        thread = threading.current_thread().name
        began = time.monotonic()
        try:
            METHODS[name](self._ground)
        except DOCUMENTED:
            pass
        except BaseException as error:
            self._ground.unexpected.append(f"{name} on {thread}: {_formatted(error)}")
        took = time.monotonic() - began
        if name in _CLOSING and took > CLOSE_TIMEOUT + SLACK:
            self._ground.unexpected.append(f"{name} on {thread} took {took:.1f} s")
        self._calls += 1


# The child process


def _formatted(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


class _Child:
    """Makes the tries that the parent has sent, and prints a line about each."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def step(self, name: str) -> None:
        """Tell the parent which step begins; it may take TIME_LIMIT."""
        faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
        print(json.dumps({"step": name}), flush=True)

    def _attempt(self, act: Callable[[], object]) -> None:
        """Make one try, then check that the shard is as good as new."""
        result: object = None
        try:
            result = act()
            self.step("the shard is closed and used again")
            self._ground.restore()
        except BaseException as error:
            self._ground.unexpected.append(_formatted(error))
        print(json.dumps({"result": result, "unexpected": self._ground.unexpected}), flush=True)
        if self._ground.unexpected:
            os._exit(0)  # the parent goes on in another child, with a shard that is whole

    def record(self) -> None:
        """List the spots of every operation."""
        for name, operation in OPERATIONS.items():

            def act(operation: Operation = operation, name: str = name) -> object:
                self.step(f"{name} is recorded")
                self._ground.prepare(operation.stage)
                found = list_spots(lambda: operation.act(self._ground))
                return [name, *([asdict(spot) for spot in spots] for spots in found)]

            self._attempt(act)

    def interrupt(self, points: Iterable[dict[str, Any]]) -> None:
        """Try points."""
        for data in points:
            point = Point(data["operation"], data["interrupt"], Spot(**data["spot"]))

            def act(point: Point = point) -> object:
                self.step("the shard is prepared")
                self._ground.prepare(OPERATIONS[point.operation].stage)
                self.step("the operation runs")
                return _try_point(self._ground, point)

            self._attempt(act)

    def interleave(self, seeds: Iterable[str]) -> None:
        """Go through rounds of threads."""
        for seed in seeds:

            def act(seed: str = seed) -> object:
                _Round(self._ground, seed, lambda: self.step("threads and callbacks call")).run()
                return True

            self._attempt(act)


def main() -> None:
    """The child process: a job, as JSON, on standard input; lines of JSON on standard output."""
    faulthandler.dump_traceback_later(10 * TIME_LIMIT, exit=True)  # while the parent writes
    job = json.load(sys.stdin)
    with QuickPeer() as peer:
        ground = Ground(peer)
        ground.restore()
        child = _Child(ground)
        getattr(child, job["do"])(*job["arguments"])
        child.step("the child ends")
        ground.shard.disconnect()


# The parent process


@dataclass
class Finding:
    """What should not have happened.

    :param where: the point, or the seed of the round.
    :param is_hang: True if a step took longer than TIME_LIMIT.
    :param text: the step that hung and the stacks of all threads, or the exceptions.
    """

    where: str
    is_hang: bool
    text: str

    def __str__(self) -> str:
        return f"{'HANG' if self.is_hang else 'UNEXPECTED'} {self.where}\n{self.text}"


@dataclass
class Summary:
    """The results of many tries.

    :param tried: how many points or rounds were tried.
    :param not_reached: how many of the points the operation did not reach this time, since a wait
        ended sooner.
    :param seconds: how long all took.
    :param findings: what should not have happened.
    """

    tried: int = 0
    not_reached: int = 0
    seconds: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        """Add the results of other tries to these."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def hangs(self) -> int:
        """How many findings are hangs."""
        return sum(finding.is_hang for finding in self.findings)

    def __str__(self) -> str:
        lines = [
            f"tried {self.tried} in {self.seconds:.0f} s, of which {self.not_reached} were not "
            f"reached; hangs {self.hangs}, unexpected {len(self.findings) - self.hangs}",
            *map(str, self.findings),
        ]
        return "\n".join(lines)


def _run_child(do: str, *arguments: Any) -> Iterator[tuple[Any, Finding | None]]:
    """Have a child do a job; yield the result of each try, and the finding if there is one.

    After a finding the child has ended, and has left the rest of its job undone.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", "from tests.reliability.storms import main; main()"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            with process.stdin, process.stdout:
                json.dump({"do": do, "arguments": arguments}, process.stdin)
                process.stdin.close()
                step = "the child starts"
                for line in process.stdout:
                    told = json.loads(line)
                    if "step" in told:
                        step = told["step"]
                        continue
                    unexpected = "\n".join(told["unexpected"])
                    finding = Finding("", False, unexpected) if unexpected else None
                    yield told["result"], finding
            process.wait()  # the child ends by itself, or by its watchdog
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            errors.seek(0)
            said = errors.read()
            yield None, Finding("", said.startswith("Timeout"), f"while {step}\n{said}")


def list_points() -> list[Point]:
    """Every point: each operation, interrupted at each spot by each method and by Ctrl-C."""
    points = []
    for result, finding in _run_child("record"):
        if finding:
            raise RuntimeError(f"the operations fail without interrupts, too\n{finding}")
        operation, anywhere, ctrl_c = result
        points += [
            Point(operation, method, Spot(**spot)) for spot in anywhere for method in METHODS
        ]
        points += [Point(operation, CTRL_C, Spot(**spot)) for spot in ctrl_c]
    return points


def draw_points(points: Sequence[Point], count: int, seed: int) -> list[Point]:
    """Draw points at random, one in five for Ctrl-C, whose points are few and each matter more."""
    dice = random.Random(seed)
    ctrl_c = [point for point in points if point.interrupt == CTRL_C]
    handlers = [point for point in points if point.interrupt != CTRL_C]
    drawn = dice.sample(ctrl_c, count // 5) + dice.sample(handlers, count - count // 5)
    dice.shuffle(drawn)
    return drawn


def _try_all(do: str, tries: Sequence[Any], names: Sequence[str], most: int) -> Summary:
    """Make all tries, in one child after the other, until there are `most` findings."""
    summary = Summary()
    began = time.monotonic()
    while summary.tried < len(tries) and len(summary.findings) < most:
        for result, finding in _run_child(do, tries[summary.tried :]):
            if finding:
                finding.where = names[summary.tried]
                summary.findings.append(finding)
            elif not result:
                summary.not_reached += 1
            summary.tried += 1
    summary.seconds = time.monotonic() - began
    return summary


def try_points(points: Sequence[Point], most: int = 10) -> Summary:
    """Try points one after the other.

    :param most: how many findings are enough.
    """
    return _try_all("interrupt", [asdict(point) for point in points], [*map(str, points)], most)


def interleave(seed: int, rounds: int, most: int = 10) -> Summary:
    """Let threads call random methods of one shard, for a number of rounds.

    :param most: how many findings are enough.
    """
    seeds = [f"{seed}/{number}" for number in range(rounds)]
    return _try_all("interleave", seeds, [f"interleaving {each}" for each in seeds], most)

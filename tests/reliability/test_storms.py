"""Some of the storms in ``storms.py``; ``benchmarks.interrupts`` tries every point."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable

import pytest

from tests.reliability.storms import (
    Interrupt,
    draw_points,
    interleave,
    list_points,
    list_spots,
    traces_instructions,
    try_points,
)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_signal_at_any_instruction_hangs_nothing_and_leaves_the_shard_whole() -> None:
    """Rows 59 to 61: 500 points, drawn anew in each run (pytest-randomly prints the seed)."""
    seed = random.randrange(2**32)
    summary = try_points(draw_points(list_points(), 500, seed), most=5)
    again = f"again: python -m benchmarks.interrupts --draw 500 --seed {seed}"
    assert not summary.findings, f"{again}\n{summary}"
    assert (
        summary.not_reached < 100
    )  # if more, the machine is too busy, or the tracer misses its spots


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_threads_and_callbacks_that_call_everything_at_once_hang_nothing() -> None:
    """Rows 48 to 50: every call ends in time, and raises only what is documented."""
    seed = random.randrange(2**32)
    summary = interleave(seed, rounds=30, most=3)
    again = f"again: python -m benchmarks.interrupts --rounds 30 --seed {seed}"
    assert not summary.findings, f"{again}\n{summary}"


def _held_after_ctrl_c(act: Callable[[], object], is_held: Callable[[], bool]) -> int:
    """Press Ctrl-C at each spot of a function; return how often the lock stayed held."""
    held = 0
    for spot in list_spots(act)[1]:
        with pytest.raises(KeyboardInterrupt), Interrupt(spot, is_ctrl_c=True).running():
            act()
        held += is_held()
    return held


def _in_threading(source: str, **names: object) -> Callable[[], None]:
    """Make a function that the tracer takes for one of ``threading.py``."""
    code = compile(source, threading.__file__, "exec")
    return lambda: exec(code, names)


@traces_instructions
def test_the_tracer_raises_ctrl_c_only_where_cpython_may_run_a_handler() -> None:
    """Ctrl-C leaves a lock held inside the Python code of Condition, and nowhere between C code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    conditions = [threading.Condition(threading.Lock())]

    def enter_condition() -> None:
        conditions.append(threading.Condition(threading.Lock()))
        with conditions[-1]:
            pass

    def is_condition_held() -> bool:
        return not conditions[-1].acquire(blocking=False)

    assert _held_after_ctrl_c(enter_condition, is_condition_held) > 0

    lock = threading.Lock()
    with_lock = _in_threading("with lock:\n    x = 1\n", lock=lock)
    assert _held_after_ctrl_c(with_lock, lock.locked) == 0

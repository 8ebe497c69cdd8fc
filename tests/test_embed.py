"""one_process(): several processes, one of which runs the shard."""

from __future__ import annotations

import logging
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardlib import IdentifyGate, Intents, Session, Shard, ShardError, ShardState, candidate
from shardlib.embed import OneProcess, one_process
from shardlib.lockfile import LockFile
from shardlib.testing import GatewayConnection, LocalGateway
from tests.command import ROOT
from tests.support import AT_ONCE, NEVER, TOKEN, not_none, wait_until

PATIENCE = 60.0

# Seconds in which another process must have the session of one that was killed. Two would do on a
# machine that is not busy.
TAKEOVER = 15.0

on_posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")

# A worker of a server. It takes commands from standard input, each a line of Python.
_WORKER = """
import logging, multiprocessing, os, sys, time
from shardlib import Intents, Shard
from shardlib.embed import one_process

logging.basicConfig(stream=sys.stdout, format="log: %(message)s")
path, url, token = sys.argv[1:]

def say(*words):
    # One write a line: other processes write to the same pipe.
    os.write(1, (" ".join(map(str, (os.getpid(), *words))) + "\\n").encode())

def start(session):
    say("starts", session and session.session_id)
    bot = Shard(token, Intents.default(), session=session)
    bot.on("MESSAGE_CREATE", lambda shard, data: say("read", data["content"]))
    bot.connect(url)
    return bot

def run():
    global keeper
    keeper = one_process(path, start)

def fork():
    '''Fork a process that tells what it is, once a second, until its parent has died.'''
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            say(keeper)
            time.sleep(0.2)
        os._exit(0)

for line in sys.stdin:
    exec(line)
"""


class Worker:
    """A process that calls one_process(), whose output is collected."""

    def __init__(self, path: Path, gateway: LocalGateway, token: str | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(path), gateway.url, token or gateway.token],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.pid = self.process.pid
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with not_none(self.process.stdout) as stdout:
            self.lines.extend(stdout)

    def do(self, command: str) -> None:
        stdin = not_none(self.process.stdin)
        stdin.write(command + "\n")
        stdin.flush()

    def has_said(self, text: str) -> bool:
        return any(text in line for line in list(self.lines))

    def wait_for(self, text: str) -> str:
        wait_until(lambda: self.has_said(text), PATIENCE, f"{text!r} in {self.lines}")
        return next(line for line in list(self.lines) if text in line)

    def wait_until_it(self, role: str) -> None:
        """Wait until the process says, from now on, that this is what it does."""
        before = len(self.lines)

        def asked() -> bool:
            self.do("say(keeper)")
            return any(f"process {self.pid} {role}" in line for line in self.lines[before:])

        wait_until(asked, PATIENCE, f"{role!r} in {self.lines}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        not_none(self.process.stdin).close()
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)


@pytest.fixture(autouse=True)
def this_process_hurries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers take the time that they take with users."""
    monkeypatch.setattr(candidate, "SETTLING_TIME", 0.1)
    monkeypatch.setattr(candidate, "WATCH_INTERVAL", 0.2)


@pytest.fixture
def gateway() -> Iterator[LocalGateway]:
    with LocalGateway(identify_interval=0) as gateway:
        yield gateway


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bot.lock"


@pytest.fixture
def begin(path: Path, gateway: LocalGateway) -> Iterator[Callable[..., Worker]]:
    """Starts a worker that has called one_process()."""
    workers = []

    def begin(*commands: str, token: str | None = None) -> Worker:
        worker = Worker(path, gateway, token)
        workers.append(worker)
        for command in commands or ("run()",):
            worker.do(command)
        return worker

    yield begin
    for worker in workers:
        with worker:
            pass


@pytest.fixture
def keep(path: Path) -> Iterator[Callable[..., OneProcess]]:
    """Calls one_process() in this process."""
    keepers = []

    def keep(start: Callable[[Session | None], object]) -> OneProcess:
        keeper = one_process(path, start)  # type: ignore[arg-type]  # some return no shard
        keepers.append(keeper)
        return keeper

    yield keep
    for keeper in keepers:
        keeper.close()


def connected(gateway: LocalGateway, timeout: float = PATIENCE) -> GatewayConnection:
    return gateway.wait_for_connection(lambda connection: connection.session, timeout)


def holder(workers: list[Worker]) -> Worker:
    """The one worker that runs the shard."""
    wait_until(lambda: any(worker.has_said("starts") for worker in workers), PATIENCE)
    (found,) = [worker for worker in workers if worker.has_said("starts")]
    return found


def saved(path: Path) -> Callable[[], bool]:
    """A condition to wait for: the session is saved."""
    return Path(f"{path}.session").exists


def starter(gateway: LocalGateway) -> Callable[[Session | None], Shard]:
    def start(session: Session | None) -> Shard:
        gate = IdentifyGate(interval=0.001)
        shard = Shard(gateway.token, Intents.default(), session=session, identify_gate=gate)
        shard.connect(gateway.url)
        return shard

    return start


# Who runs it


def test_exactly_one_of_many_processes_runs_the_shard(
    begin: Callable[..., Worker], gateway: LocalGateway
) -> None:
    workers = [begin() for _ in range(4)]
    connected(gateway)
    running = holder(workers)
    running.wait_until_it("has the lock")
    for worker in workers:
        if worker is not running:
            worker.wait_until_it("waits for the lock")
    assert len(gateway.all_connections) == 1


def test_another_process_resumes_the_session_of_one_that_is_killed(
    begin: Callable[..., Worker], gateway: LocalGateway, path: Path
) -> None:
    workers = [begin(), begin()]
    session = not_none(connected(gateway).session)
    killed = holder(workers)
    (other,) = (worker for worker in workers if worker is not killed)
    other.wait_until_it("waits for the lock")
    wait_until(saved(path), PATIENCE)
    killed.kill()
    guild = next(iter(gateway.world.guilds.values()))
    mention = f"meanwhile <@{gateway.world.user['id']}>"
    gateway.send_message(guild.text_channels[0]["id"], guild.owner_id, mention)
    assert connected(gateway, TAKEOVER).session is session
    other.wait_for("read meanwhile")


def test_close_gives_the_shard_to_another_process_at_once(
    begin: Callable[..., Worker], gateway: LocalGateway, path: Path
) -> None:
    workers = [begin(), begin()]
    first = connected(gateway)
    closed = holder(workers)
    (other,) = (worker for worker in workers if worker is not closed)
    other.wait_until_it("waits for the lock")
    wait_until(saved(path), PATIENCE)
    closed.do("keeper.close(); say(keeper, keeper.shard)")
    assert connected(gateway, TAKEOVER).session is first.session
    assert first.wait_closed(PATIENCE) == 4000
    closed.wait_for("is closed> None")


def test_a_process_that_ends_orderly_saves_what_its_callbacks_have_seen(
    begin: Callable[..., Worker], gateway: LocalGateway, path: Path
) -> None:
    worker = begin()
    connection = connected(gateway)
    wait_until(saved(path), PATIENCE)
    gateway.dispatch("USER_UPDATE", gateway.world.user)
    events = 1 + len(gateway.world.guilds) + 1  # READY, GUILD_CREATE for each guild, and this one
    worker.do(f"while (keeper.shard.session.sequence or 0) < {events}: time.sleep(0.01)\n")
    worker.do("sys.exit()")
    worker.process.wait(PATIENCE)
    assert connection.wait_closed(PATIENCE) == 4000
    session = Session.load(f"{path}.session")
    assert session.session_id == not_none(connection.session).session_id
    assert session.sequence == events


# Forks


@on_posix
def test_the_processes_that_a_master_forks_at_once_take_its_place(
    begin: Callable[..., Worker], gateway: LocalGateway, path: Path
) -> None:
    """As with gunicorn --preload."""
    # The master waits so long for the forks, which may come late on a busy machine.
    settling = "from shardlib import candidate; candidate.SETTLING_TIME = 3.0"
    master = begin(settling, "run(); fork(); fork()")
    session = not_none(connected(gateway).session)
    child = int(master.wait_for("starts").split()[0])
    assert child != master.pid
    master.wait_until_it("leaves the lock to the processes forked from it")
    master.wait_for("waits for the lock")
    wait_until(saved(path), PATIENCE)
    os.kill(child, signal.SIGKILL)
    assert connected(gateway, TAKEOVER).session is session
    master.wait_for(f"starts {session.session_id}")


@pytest.mark.slow
@on_posix
def test_a_process_forked_from_the_one_that_runs_the_shard_does_not_keep_the_lock(
    begin: Callable[..., Worker], gateway: LocalGateway, path: Path
) -> None:
    forking = begin()
    session = not_none(connected(gateway).session)
    forking.wait_until_it("has the lock")
    wait_until(saved(path), PATIENCE)
    forking.do("child = os.fork() or time.sleep(600); say('child is', child)")
    child = int(forking.wait_for("child is").split()[-1])
    try:
        other = begin()
        other.wait_until_it("waits for the lock")
        forking.kill()
        assert connected(gateway, TAKEOVER).session is session
        other.wait_for("starts")
    finally:
        os.kill(child, signal.SIGKILL)


@on_posix
def test_a_process_that_forks_late_goes_on_and_its_child_takes_no_part(
    begin: Callable[..., Worker], gateway: LocalGateway
) -> None:
    forking = begin()
    connection = connected(gateway)
    forking.do("while not keeper.shard: time.sleep(0.01)\n")
    forking.do("fork()")
    forking.wait_for("leaves the lock to its parent process")
    forking.do("keeper.shard.wait_until_ready(); say(keeper.shard.state)")
    forking.wait_for("ShardState.READY")
    assert gateway.connections == [connection]


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system cannot fork"
)
def test_a_process_of_multiprocessing_takes_no_part(
    begin: Callable[..., Worker], gateway: LocalGateway
) -> None:
    """However early it is forked: a program may make a pool of processes as it is imported."""
    worker = begin(
        "run()",
        "context = multiprocessing.get_context('fork')",
        "helper = context.Process(target=lambda: say(keeper))",
        "helper.start()",
    )
    worker.wait_for("leaves the lock to its parent process")
    connected(gateway)
    assert int(worker.wait_for("starts").split()[0]) == worker.pid
    worker.do("helper.join()")


# When start() fails


def test_start_is_called_again_after_it_has_raised(
    keep: Callable[..., OneProcess], gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def start(session: Session | None) -> Shard:
        calls.append(session)
        if len(calls) == 1:
            raise RuntimeError("the database is not there yet")
        return starter(gateway)(session)

    keeper = keep(start)
    connected(gateway)
    wait_until(lambda: keeper.shard)
    assert len(calls) == 2
    (record,) = [each for each in caplog.records if "start() failed" in each.message]
    assert "the database is not there yet" in record.message and record.exc_info


def test_a_session_that_start_cannot_use_is_left_out_the_next_time(
    keep: Callable[..., OneProcess], gateway: LocalGateway, path: Path
) -> None:
    """The bot has another number of shards than before."""
    Session("old", 7, None, 1, 2).save(f"{path}.session")
    keeper = keep(starter(gateway))
    session = not_none(connected(gateway).session)
    wait_until(lambda: keeper.shard and keeper.shard.session_id == session.session_id)


def test_a_damaged_session_file_is_told_and_a_new_session_begins(
    keep: Callable[..., OneProcess],
    gateway: LocalGateway,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Path(f"{path}.session").write_text("{")
    keep(starter(gateway))
    connected(gateway)
    assert "holds no usable session" in caplog.text


def test_a_start_that_returns_no_shard_is_told_and_not_called_again(
    keep: Callable[..., OneProcess], gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    shards = []
    keeper = keep(lambda session: shards.append(starter(gateway)(session)))
    try:
        wait_until(lambda: "must return its Shard" in caplog.text)
        assert keeper.holds_lock and keeper.shard is None
        keeper.close()
        assert len(shards) == 1
    finally:
        shards[0].disconnect()


@pytest.mark.slow
def test_a_fatal_error_is_told_and_no_other_process_tries(
    begin: Callable[..., Worker], gateway: LocalGateway
) -> None:
    first = begin(token="wrong")
    first.wait_for("has ended for good: ")
    assert first.has_said("AuthenticationFailed")
    other = begin()
    other.wait_until_it("waits for the lock")
    first.wait_until_it("has the lock")
    assert not other.has_said("starts")
    assert len(gateway.all_connections) == 1
    assert sum("ended for good" in line for line in first.lines) == 1
    first.do("keeper.close()")  # the other one was able to try all the time
    connected(gateway)


def test_a_fatal_error_that_start_raises_is_told_and_start_is_not_called_again(
    keep: Callable[..., OneProcess], gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    def start(session: Session | None) -> Shard:
        shard = Shard("wrong", Intents.default())
        shard.connect(gateway.url)
        shard.wait_until_ready()
        return shard

    keeper = keep(start)
    wait_until(lambda: "has ended for good" in caplog.text)
    assert keeper.holds_lock
    assert len(gateway.all_connections) == 1


def test_a_shard_whose_connection_has_only_begun_is_not_told_as_ended(
    keep: Callable[..., OneProcess], gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    class Begun(Shard):
        """Shows its state of before start() twice: the reader has changed it right after."""

        looks = 0

        @property
        def state(self) -> ShardState:
            self.looks += 1
            return ShardState.DISCONNECTED if self.looks <= 2 else super().state

    def start(session: Session | None) -> Shard:
        shard = Begun(gateway.token, Intents.default(), session=session)
        shard.start(gateway.url)
        return shard

    keeper = keep(start)
    wait_until(lambda: os.path.exists(keeper.session_path))
    assert "has ended for good" not in caplog.text


def test_a_shard_closed_by_disconnect_stays_closed_and_leaves_no_session(
    keep: Callable[..., OneProcess], gateway: LocalGateway, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keep(starter(gateway))
    wait_until(lambda: keeper.shard and os.path.exists(keeper.session_path))
    not_none(keeper.shard).disconnect()
    wait_until(lambda: "closed by disconnect()" in caplog.text)
    assert not os.path.exists(keeper.session_path)
    assert keeper.holds_lock
    not_none(keeper.shard).connect(gateway.url)  # by hand: it is looked after again
    wait_until(lambda: os.path.exists(keeper.session_path))


def test_a_shard_that_start_has_not_connected_is_told(
    keep: Callable[..., OneProcess], caplog: pytest.LogCaptureFixture
) -> None:
    keep(lambda session: Shard(TOKEN, 0))
    wait_until(lambda: "has not connected" in caplog.text)


def test_a_session_that_cannot_be_saved_is_told_once(
    gateway: LocalGateway, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = one_process(path, starter(gateway), session=path.parent / "missing" / "session")
    connected(gateway)
    for _ in range(3):  # each is one more sequence to be saved
        wait_until(lambda: "cannot save the session" in caplog.text)
        gateway.dispatch("USER_UPDATE", gateway.world.user)
    keeper.close()
    assert caplog.text.count("cannot save the session") == 1


# Closing


@pytest.mark.parametrize("event", ["READY", "start"])
def test_close_in_start_and_in_a_callback_returns_at_once(
    event: str,
    keep: Callable[..., OneProcess],
    gateway: LocalGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardlib.candidate.CLOSE_TIMEOUT", NEVER)
    keepers: list[OneProcess] = []
    seconds: list[float] = []

    def close(*_: object) -> None:
        wait_until(lambda: keepers and (event == "start" or keepers[0].shard))
        began = time.monotonic()
        keepers[0].close()
        seconds.append(time.monotonic() - began)

    def start(session: Session | None) -> Shard:
        shard = Shard(gateway.token, Intents.default(), close_timeout=NEVER)
        shard.on("READY", close)
        if event == "start":
            close()
        shard.connect(gateway.url)
        return shard

    keepers.append(keep(start))
    wait_until(lambda: "is closed" in repr(keepers[0]), PATIENCE)
    assert seconds[0] < AT_ONCE  # it would have waited for CLOSE_TIMEOUT, or close_timeout
    assert gateway.all_connections[0].wait_closed(PATIENCE) == 4000
    assert keepers[0].shard is None


def test_a_process_that_only_waits_is_closed_at_once(path: Path) -> None:
    keeper = one_process(path, lambda session: Shard(TOKEN, 0))
    keeper.close()
    keeper.close()
    assert "is closed" in repr(keeper)
    assert not [each for each in threading.enumerate() if "one-process" in each.name]
    one_process(path, lambda session: Shard(TOKEN, 0)).close()  # the file is free again


# The lock


_TAKE_THE_LOCK = """
import sys
from shardlib.lockfile import LockFile
lock = LockFile(sys.argv[1])
print("tries", flush=True)
while not lock.acquire():
    pass
print("has it", flush=True)
sys.stdin.read()
"""


def other_process_can_lock(path: Path) -> bool:
    program = "import sys; from shardlib.lockfile import LockFile\n"
    program += "sys.exit(0 if LockFile(sys.argv[1]).acquire() else 5)"
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=PATIENCE)
    assert done.returncode in (0, 5)
    return done.returncode == 0


def test_a_lock_lost_by_opening_and_closing_the_file_is_taken_back(path: Path) -> None:
    lock = LockFile(str(path))
    try:
        assert lock.acquire()
        assert not other_process_can_lock(path)
        path.read_bytes()
        assert lock.acquire()
        assert not other_process_can_lock(path)
    finally:
        lock.close()
    assert other_process_can_lock(path)


@on_posix
def test_a_lock_file_that_was_deleted_is_created_and_locked_again(path: Path) -> None:
    """As a cleaner of /tmp does after some days."""
    lock = LockFile(str(path))
    try:
        assert lock.acquire()
        path.unlink()
        assert lock.acquire()
        assert path.exists()
        assert not other_process_can_lock(path)
    finally:
        lock.close()


@on_posix
def test_a_process_closes_its_shard_if_another_one_has_the_lock(
    keep: Callable[..., OneProcess],
    gateway: LocalGateway,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keeper = keep(starter(gateway))
    connection = connected(gateway)
    wait_until(lambda: keeper.shard)
    with subprocess.Popen(
        [sys.executable, "-c", _TAKE_THE_LOCK, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # what waits to be read is in the pipe, where select() sees it
    ) as other:
        out = not_none(other.stdout)

        def unlock_until_taken() -> bool:  # again and again: this process takes the lock back, too
            path.read_bytes()
            return bool(select.select([out], [], [], 0)[0])

        try:
            assert out.readline() == b"tries\n"
            wait_until(unlock_until_taken, PATIENCE)
            assert out.readline() == b"has it\n"
            assert connection.wait_closed(PATIENCE) == 4000
            wait_until(lambda: "another process has locked" in caplog.text)
            assert not keeper.holds_lock and keeper.shard is None
        finally:
            other.kill()  # one that never gets the lock would go on for ever
    assert connected(gateway).session is connection.session  # once it is free again


def test_a_path_is_taken_once_a_process(path: Path) -> None:
    keeper = one_process(path, lambda session: Shard(TOKEN, 0))
    link = path.parent / "link"
    link.symlink_to(path)
    try:
        wait_until(lambda: keeper.holds_lock)
        for again in (path, link, os.path.relpath(path)):
            with pytest.raises(ValueError, match="already"):
                one_process(again, lambda session: Shard(TOKEN, 0))
        assert not other_process_can_lock(path)
    finally:
        keeper.close()


def test_a_path_that_cannot_be_a_lock_file_is_refused(tmp_path: Path) -> None:
    def start(session: Session | None) -> Shard:
        return Shard(TOKEN, 0)

    with pytest.raises(FileNotFoundError, match="a directory that lasts.*missing"):
        one_process(tmp_path / "missing" / "bot.lock", start)
    with pytest.raises(IsADirectoryError, match="give one_process\\(\\) a file"):
        one_process(tmp_path, start)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(OSError, match="no regular file"):
            one_process(tmp_path / "fifo", start)
    with pytest.raises(ValueError, match="another file"):
        one_process(tmp_path / "bot.lock", start, session=tmp_path / "bot.lock")


def test_a_start_that_cannot_be_called_is_refused(path: Path) -> None:
    for start in (lambda: Shard(TOKEN, 0), None, "start"):
        with pytest.raises(TypeError, match="start"):
            one_process(path, start)  # type: ignore[arg-type]
    assert not path.exists()


# Servers


def test_the_master_of_uwsgi_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uWSGI's module is there in its own processes only, so one stands in for it."""

    class uwsgi:
        masterpid = staticmethod(os.getpid)

    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    with pytest.raises(ShardError, match="uwsgidecorators.postfork"):
        one_process(path, lambda session: Shard(TOKEN, 0))
    assert not path.exists()


def test_gevent_that_patches_afterwards_is_told(
    begin: Callable[..., Worker], gateway: LocalGateway
) -> None:
    pytest.importorskip("gevent")
    worker = begin("run()", "import gevent.monkey; gevent.monkey.patch_all()")
    worker.wait_for("post_worker_init")
    assert not worker.has_said("starts")


def test_the_log_tells_which_process_runs_the_shard(
    keep: Callable[..., OneProcess],
    gateway: LocalGateway,
    path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "shardlib.embed")
    keep(starter(gateway))
    connected(gateway)
    assert f"process {os.getpid()} has locked {path}" in caplog.text

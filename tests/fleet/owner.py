"""Owners of shards, as the tests of the scripts need them, and what they find in Redis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shardlib.fleet.commandscripts import BEGINNING, CommandScripts, Entry
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError
from shardlib.fleet.gatescripts import GateOutcome, GateScripts
from shardlib.fleet.keys import Keys
from shardlib.fleet.scripts import (
    FIELD,
    GAP,
    Appended,
    Batch,
    Claim,
    ClaimRequest,
    FleetSession,
    Outcome,
    Report,
    Reported,
    ShardScripts,
    new_token,
)

LEASE = 60.0
"""Seconds. No test waits for its end: :func:`end_lease` ends a lease."""

KEEP_EVENTS = 100_000


def text_of(session_id: str, sequence: int) -> bytes:
    return b'{"session":"%s","s":%d}' % (session_id.encode(), sequence)


class Owner:
    """One owner of one shard: what it claims and what it appends.

    :param scripts: to ask with.
    :param shard_id: of its shard.
    :param name: its own.
    """

    def __init__(self, scripts: ShardScripts, shard_id: int = 0, name: str = "one") -> None:
        self.token = new_token()
        self.fence = 0
        self.session: FleetSession | None = None
        self._scripts = scripts
        self._shard_id = shard_id
        self._name = name

    def claim(self, *, remembering: bool = False) -> Claim:
        session = self.session if remembering else None
        fence = self.fence if remembering else 0
        request = ClaimRequest(self.token, self._name, session, fence)
        claim = self._scripts.claim({self._shard_id: request})[self._shard_id]
        assert isinstance(claim, Claim)
        if claim.outcome is Outcome.CLAIMED:
            self.fence = claim.fence
            self.session = claim.session
        return claim

    def begin(self, session_id: str, epoch: int = 0) -> None:
        """Have a new session, of which nothing is in Redis yet, and propose an epoch for it."""
        self.session = FleetSession(session_id, "wss://gateway.discord.gg", 16, epoch)

    def append(self, sequences: Iterable[int], last_sequence: int = 0) -> Appended:
        """Append events of the session, and take in what Redis has then."""
        answer = self.try_append(sequences, last_sequence)
        assert isinstance(answer, Appended)
        return answer

    def try_append(self, sequences: Iterable[int], last_sequence: int = 0) -> Appended | FleetError:
        assert self.session is not None
        session_id = self.session.session_id
        events = [(sequence, text_of(session_id, sequence)) for sequence in sequences]
        batch = Batch(self.token, self.session, events, last_sequence)
        answer = self._scripts.append({self._shard_id: batch})[self._shard_id]
        if isinstance(answer, Appended) and answer.outcome is Outcome.APPENDED:
            self.session = self.session._replace(epoch=answer.epoch, sequence=answer.sequence)
        return answer

    def renew(self) -> Outcome | FleetError:
        return self._scripts.renew({self._shard_id: self.token})[self._shard_id]

    def tell(self, state: str = "ready", ping: float | None = None) -> Reported | FleetError:
        report = Report(self.token, state, ping)
        return self._scripts.tell({self._shard_id: report})[self._shard_id]

    def release(self) -> Outcome | FleetError:
        return self._scripts.release({self._shard_id: self.token})[self._shard_id]


def take(
    commands: CommandScripts, token: str, shard_id: int = 0, done: bytes | None = None
) -> list[Entry]:
    """What an owner finds that has carried out a command, if any."""
    entries = commands.take({shard_id: (token, done)})[shard_id]
    assert isinstance(entries, list)
    return entries


def end_lease(client: Client, keys: Keys, shard_id: int = 0) -> None:
    """Let the lease of a shard expire now."""
    client.pexpire(keys.shard(shard_id).lease, 0)


def owner_of_new_shard(
    scripts: ShardScripts, client: Client, keys: Keys, shard_id: int = 0
) -> Owner:
    """The first owner of a shard, who has a session "S1" of which nothing is in Redis."""
    owner = Owner(scripts, shard_id)
    assert owner.claim().outcome is Outcome.HELD  # Redis waits for one who remembers the shard
    end_lease(client, keys, shard_id)
    assert owner.claim().outcome is Outcome.CLAIMED
    owner.begin("S1")
    return owner


def stream(client: Client, keys: Keys, shard_id: int = 0) -> list[tuple[str, bytes]]:
    """All that is in the stream of a shard: ids and texts."""
    entries: Any = client.xrange(keys.shard(shard_id).events)
    return [(entry.decode(), fields[FIELD]) for entry, fields in entries]


def expected(epoch: int, session_id: str, sequences: Iterable[int]) -> list[tuple[str, bytes]]:
    """What a stream has to hold of a session; the sequence 0 stands for a gap."""
    return [
        (f"{epoch}-{number}", text_of(session_id, number) if number else GAP)
        for number in sequences
    ]


def run_every_script(client: Client, keys: Keys, shard_id: int = 0) -> None:
    """Have a client do for a shard all that a fleet asks of Redis, two times over."""
    scripts = ShardScripts(client, keys, lease=LEASE, keep_events=10)
    gate = GateScripts(client, keys)
    commands = CommandScripts(client, keys)
    owner = owner_of_new_shard(scripts, client, keys, shard_id)
    for session_id in ("S1", "S2"):
        owner.begin(session_id)
        assert owner.append([1, 2]).outcome is Outcome.APPENDED
        end_lease(client, keys, shard_id)
        assert owner.renew() is Outcome.RENEWED
        commands.send({shard_id: {"method": "restart"}}, 60.0)
        assert owner.tell() == Reported(Outcome.RENEWED, 1)
        (entry,) = take(commands, owner.token, shard_id)
        assert take(commands, owner.token, shard_id, entry.id) == []
        assert scripts.show([shard_id])[shard_id].owner == "one"  # type: ignore[union-attr]
        assert commands.read_news(BEGINNING)[1]
        gate.count_starts(0, 60.0)
        passing = gate.try_pass(shard_id, max_concurrency=64, spacing=30.0, budget=1000)
        assert passing.outcome is (GateOutcome.PASSED if session_id == "S1" else GateOutcome.WAIT)
    assert owner.release() is Outcome.RELEASED
    assert owner.renew() is Outcome.FENCED
    client.delete(keys.shard(shard_id).state)
    assert owner.claim(remembering=True).outcome is Outcome.CLAIMED
    assert owner.release() is Outcome.RELEASED

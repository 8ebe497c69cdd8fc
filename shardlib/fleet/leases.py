"""Leases: which shards a worker has, which it claims, and which it gives away."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from shardlib.fleet.calling import raise_first
from shardlib.fleet.config import FleetConfig, keep_config
from shardlib.fleet.connecting import Client
from shardlib.fleet.errors import FleetError, RedisAway
from shardlib.fleet.fleetshard import FleetShard
from shardlib.fleet.keys import Keys
from shardlib.fleet.rediserrors import ERRORS, fleet_error
from shardlib.fleet.roster import Roster
from shardlib.fleet.scripts import Claim, ClaimRequest, Outcome, Reported, ShardScripts, new_token
from shardlib.text import count, ranges

# Parts of a lease after which leases are renewed, and after which free shards are looked for.
_RENEWALS = 3
_POLLS = 12

# Shards beyond its share that a worker keeps, if the share is large enough: moving one costs more
# than a little inequality. Of a few shards each one counts, and a worker might go without.
_TOLERATED = 1
_LARGE_SHARE = 4

# Shards that a worker that drains hands over at the same time.
_HAND_OVERS = 4


def most_kept(share: int) -> int:
    """How many shards a worker keeps at most: with more it hands one over.

    :param share: the shards that each worker should have.
    """
    return share + (_TOLERATED if share >= _LARGE_SHARE else 0)


class Leases:
    """The shards of a worker. The worker's thread calls everything here, but :attr:`shards`.

    :param client: to look for free shards with.
    :param keys: of the fleet.
    :param scripts: to claim, renew and release with.
    :param roster: of the workers that live.
    :param name: of this worker.
    :param config: that all workers agree on.
    :param lease: seconds.
    :param make_shard: makes a shard of a number, a token and the claim with it; does not start it.
    :param start: starts a shard.
    :param log: called as :meth:`logging.Logger.log` is.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        scripts: ShardScripts,
        roster: Roster,
        *,
        name: str,
        config: FleetConfig,
        lease: float,
        make_shard: Callable[[int, str, Claim], FleetShard],
        start: Callable[[FleetShard], object],
        log: Callable[..., object],
    ) -> None:
        self._client = client
        self._keys = keys
        self._scripts = scripts
        self._roster = roster
        self._name = name
        self._config = config
        self._lease = lease
        self._make_shard = make_shard
        self._start = start
        self._log = log
        #: By number, in the order in which they were claimed. Replaced as a whole.
        self.shards: Mapping[int, FleetShard] = MappingProxyType({})
        #: Shards that are ours no more, until they are closed. Replaced as a whole.
        self.closing: tuple[FleetShard, ...] = ()
        self._tokens: dict[int, str] = {}  # of claims whose answer is not known
        self._released: set[int] = set()  # by a worker that drains, until others have them
        self._claim_after = 0.0
        self._next_poll = 0.0
        self._next_renewal = 0.0
        self._is_draining = False
        self._has_told_of_patience = False
        #: False if there is no worker to which the shards can be handed over, once this one drains.
        self.has_heirs = True

    # What the worker's thread does in each round

    @property
    def wait(self) -> float:
        """Seconds until :meth:`tend` has something to do."""
        if any(shard.is_fenced or shard.is_handed_over for shard in self.shards.values()):
            return 0.0
        return max(0.0, self._next_poll - time.monotonic())

    def tend(self) -> bool:
        """Renew, claim, start and give away, if the time has come.

        :returns: False if there was nothing to ask Redis for.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        has_asked = self.look_at_shards()
        now = time.monotonic()
        if now < self._next_poll:
            return has_asked
        self._next_poll = now + self._lease / _POLLS
        steps = [self._claim_lost, self._hand_over if self._is_draining else self._balance]
        if now >= self._next_renewal:
            self._next_renewal = now + self._lease / _RENEWALS
            steps[:0] = [self.renew, self._keep_config]
        else:
            steps.insert(0, self._tell_news)
        refused: FleetError | None = None
        for step in steps:
            try:
                step()
            except RedisAway:
                raise
            except FleetError as error:  # of one shard, as a rule: the others do not wait for it
                refused = refused or error
        self._start_due()
        if refused is not None:
            raise refused
        return True

    def look_at_shards(self) -> bool:
        """Let shards go that were claimed by another worker, and release those that are closed.

        :returns: False if there was nothing to ask Redis for.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        for shard_id, shard in self.shards.items():
            if shard.is_fenced:
                self._log(
                    logging.WARNING,
                    "shard %d was claimed by another worker, since this one was not heard of for "
                    "the time of a lease; its session goes on there",
                    shard_id,
                )
                shard.drop()
                self._forget(shard_id)
        self.closing = tuple(shard for shard in self.closing if not shard.has_ended)
        done = {i: shard for i, shard in self.shards.items() if shard.is_handed_over}
        if done:
            self._release(done)
            self._next_poll = 0.0  # there may be another to hand over
        return bool(done)

    def release_all(self) -> None:
        """Release the shards of which Redis has not all events: the Gateway has them, too.

        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        self._release(self.shards)

    def _release(self, shards: Mapping[int, FleetShard]) -> None:
        answers = self._scripts.release({i: shard.lease_token for i, shard in shards.items()})
        released = []
        for shard_id, answer in answers.items():
            if isinstance(answer, Outcome):
                self._forget(shard_id)
                self._released.add(shard_id)
                if answer is Outcome.RELEASED:
                    released.append(shard_id)
        if released:
            self._log(logging.INFO, "released %s, for another worker", _shards(released))
        raise_first(answers.values())

    def renew(self) -> None:
        """Renew all leases.

        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        self._renew(self.shards.values())

    def _renew(self, shards: Iterable[FleetShard]) -> None:
        """Renew leases, and tell how the shards are."""
        ours = {shard.shard_id: shard for shard in shards if not shard.is_lost}
        if not ours:
            return
        reports = {shard_id: shard.make_report() for shard_id, shard in ours.items()}
        answers = self._scripts.tell(reports)
        for shard_id, answer in answers.items():
            if isinstance(answer, Reported):
                ours[shard_id].take_in(reports[shard_id], answer)
        raise_first(answers.values())

    def _tell_news(self) -> None:
        """Tell how shards are that have changed, though their renewal is not due."""
        self._renew([each for each in self.shards.values() if each.has_news])

    def _keep_config(self) -> None:
        """Write again what the workers agree on, if Redis has lost it: others need it, too."""
        keep_config(self._client, self._keys, self._config)

    # Other workers

    def redis_is_away(self) -> None:
        """Claim nothing: leases expire though their owners live."""
        self._claim_after = math.inf
        self._next_renewal = 0.0

    def redis_is_back(self) -> None:
        """Claim nothing for the time of a lease, if Redis was away: the owners renew meanwhile."""
        if self._claim_after == math.inf:
            self._claim_after = time.monotonic() + self._lease

    def drain(self) -> bool:
        """Hand all shards over from now on, some at a time.

        :returns: False if there was nothing to ask Redis for.
        :raises RedisAway: if Redis does not answer.
        :raises FleetError: if Redis refuses.
        """
        if self._is_draining:
            return False
        heirs = self._roster.leave()
        self.has_heirs = heirs > 0
        self._log(
            logging.INFO,
            "handing %s over, to %s",
            count(len(self.shards), "shard"),
            count(heirs, "other worker") if heirs else "whoever comes: no other worker lives",
        )
        self._is_draining = True
        self._released.clear()
        self._next_poll = 0.0
        return True

    def _balance(self) -> None:
        share = self._roster.enter(self._config.shard_count)
        staying = [shard for shard in self.shards.values() if not shard.is_leaving]
        if len(staying) > most_kept(share):
            self._log(
                logging.INFO,
                "shard %d is handed over: this worker has %d, and its share is %d",
                staying[-1].shard_id,
                len(staying),
                share,
            )
            staying[-1].leave()
        elif len(staying) < share and time.monotonic() >= self._claim_after:
            self._claim(self._free_shards()[: share - len(staying)])

    def _hand_over(self) -> None:
        if self._released:
            self._released.intersection_update(self._free_shards())
        leaving = sum(shard.is_leaving for shard in self.shards.values()) + len(self._released)
        staying = [shard for shard in self.shards.values() if not shard.is_leaving]
        for shard in staying[: max(0, _HAND_OVERS - leaving)]:
            shard.leave()

    def _free_shards(self) -> list[int]:
        """The shards that nobody has, lowest first.

        A key without an end is no lease: it would keep the shard from all workers for ever.
        """
        others = [
            shard_id for shard_id in range(self._config.shard_count) if shard_id not in self.shards
        ]
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for shard_id in others:
                    pipeline.pttl(self._keys.shard(shard_id).lease)
                times_left = pipeline.execute()
        except ERRORS as error:
            raise fleet_error(error) from error
        return [shard_id for shard_id, left in zip(others, times_left, strict=True) if left < 0]

    # Claiming

    def _claim(self, shard_ids: list[int]) -> None:
        requests = {
            shard_id: ClaimRequest(self._tokens.setdefault(shard_id, new_token()), self._name)
            for shard_id in shard_ids
        }
        claimed: dict[str, list[int]] = {}  # by their earlier owners
        answers = self._scripts.claim(requests)
        for shard_id, claim in answers.items():
            if isinstance(claim, FleetError):
                continue
            token = self._tokens.pop(shard_id)
            if claim.outcome is Outcome.CLAIMED:
                shard = self._make_shard(shard_id, token, claim)
                self.shards = MappingProxyType({**self.shards, shard_id: shard})
                claimed.setdefault(claim.owner, []).append(shard_id)
            elif claim.owner == "":
                self._tell_of_patience(claim.wait)
        self._tell_claimed(claimed)
        raise_first(answers.values())

    def _tell_claimed(self, claimed: Mapping[str, list[int]]) -> None:
        for owner, shard_ids in claimed.items():
            self._log(
                logging.INFO,
                "claimed %s%s; this worker has %d of %d",
                _shards(shard_ids),
                f" of {owner}, which was not heard of for {count(self._lease, 'second')}"
                if owner
                else "",
                len(self.shards),
                self._config.shard_count,
            )

    def _tell_of_patience(self, wait: float) -> None:
        if not self._has_told_of_patience:
            self._has_told_of_patience = True
            self._log(
                logging.INFO,
                "this Redis knows nothing of the shards yet: workers that remember them, if there "
                "are any, have %s to come forward",
                count(round(wait, 1), "second"),
            )

    def _claim_lost(self) -> None:
        """Claim shards again whose state Redis has lost."""
        lost = {i: shard for i, shard in self.shards.items() if shard.is_lost}
        if not lost:
            return
        self._keep_config()  # Redis may have lost all
        requests = {}
        for shard_id, shard in lost.items():
            token = self._tokens.setdefault(shard_id, new_token())
            session = shard.outbox.remember()
            requests[shard_id] = ClaimRequest(token, self._name, session, shard.fence)
        answers = self._scripts.claim(requests)
        for shard_id, claim in answers.items():
            if isinstance(claim, Claim):
                self._take_in(lost[shard_id], requests[shard_id], claim)
        raise_first(answers.values())

    def _take_in(self, shard: FleetShard, request: ClaimRequest, claim: Claim) -> None:
        ours, theirs = request.session, claim.session
        if claim.outcome is Outcome.HELD:
            # Held by nobody: Redis knows nothing of the shard, nor has it a session that we could
            # prove to be ours. After a lease it lets us have the shard.
            if claim.owner:
                shard.is_fenced = True
        else:
            shard.lease_token = self._tokens.pop(shard.shard_id)
            shard.fence = claim.fence
            shard.is_lost = False
            if theirs is not None and (ours is None or theirs.session_id != ours.session_id):
                shard.is_fenced = True  # another worker had the shard meanwhile
            else:
                self._log(
                    logging.WARNING,
                    "Redis has lost all that it knew of shard %d; this worker has told it again",
                    shard.shard_id,
                )

    def _start_due(self) -> None:
        """Start the shards that resume, and as many of the others as may identify at once."""
        waiting = [shard for shard in self.shards.values() if not shard.was_begun]
        identifying = [
            shard
            for shard in self.shards.values()
            if shard.was_begun and shard.session_id is None and shard.is_under_way
        ]
        room = self._config.max_concurrency - len(identifying)
        for shard in sorted(waiting, key=lambda shard: shard.shard_id):
            if shard.session_id is not None:
                self._start(shard)
            elif room > 0:
                self._start(shard)
                room -= 1

    def _forget(self, shard_id: int) -> None:
        shards = dict(self.shards)
        self.closing = (*self.closing, shards.pop(shard_id))
        self._tokens.pop(shard_id, None)
        self.shards = MappingProxyType(shards)


def _shards(shard_ids: list[int]) -> str:
    return f"shard{'' if len(shard_ids) == 1 else 's'} {ranges(shard_ids)}"

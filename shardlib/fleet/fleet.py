"""Fleet: one bot whose shards run on many machines, with Redis in the middle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import ujson

from shardlib.checks import check_at_least_one, check_not_negative, check_positive, check_type
from shardlib.closing import Closing
from shardlib.fleet.commands import Commands
from shardlib.fleet.config import FleetConfig, check_config, keep_config, read_config
from shardlib.fleet.connecting import Client, check_server, connect
from shardlib.fleet.consumer import Consumer
from shardlib.fleet.errors import FleetError, no_such_fleet
from shardlib.fleet.fleetevents import Gap
from shardlib.fleet.gatescripts import GateScripts
from shardlib.fleet.groupscripts import delete_group, lags
from shardlib.fleet.keys import Keys, check_name
from shardlib.fleet.orderedstreams import Watermarks
from shardlib.fleet.rediserrors import ERRORS, fleet_error
from shardlib.fleet.scripts import ShardScripts, ShardView
from shardlib.fleet.worker import Worker, machine_of
from shardlib.gateway import IDENTIFY_INTERVAL, SESSION_START_LIMIT
from shardlib.payloads import JSONModule
from shardlib.state import ShardState

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from shardlib.shardoptions import ShardOptions

_STATES = {state.value: state for state in ShardState}

_logger = logging.getLogger("shardlib.fleet")

# Redis counts leases in whole milliseconds, and entries of a stream in 64 bits.
_SHORTEST_LEASE = 0.001
_MOST_KEPT = 2**63 - 1


class FleetShardInfo(NamedTuple):
    """A shard of a fleet, as Redis knows it at one moment. All times are by the clock of Redis.

    :param shard_id: its number.
    :param owner: the :attr:`Worker.name` of the worker that has it, None if nobody has.
    :param machine: the host of that worker, None if nobody has it.
    :param state: of the owner's shard, some seconds old at most; None before it has told. For JSON
        take its ``value``, a str.
    :param ping: seconds of the shard's last heartbeat, likewise.
    :param lease: seconds after which others may claim it, unless the owner renews; 0.0 if they may.
    :param fence: how often it was claimed.
    :param session_id: of its session, None if it has had none.
    :param session_age: seconds since the session began, or since Redis was first told of it.
    :param sequence: of the last event of the session that Redis has.
    :param events: how many entries its stream has.
    :param lag: by the name of each group of consumers, how many of these the group has not
        acknowledged, reckoned if they are more than 1,000; None if the group never read them.
    """

    shard_id: int
    owner: str | None
    machine: str | None
    state: ShardState | None
    ping: float | None
    lease: float
    fence: int
    session_id: str | None
    session_age: float | None
    sequence: int
    events: int
    lag: Mapping[str, int | None]


class Fleet(Closing):
    """One bot over any number of processes and machines, which have a Redis in common.

    ::

        fleet = Fleet("rediss://cache:6379/0", "mybot")
        fleet.init(16)                                           # once
        fleet.worker(token, Intents.default()).run_forever()     # on each machine

    The constructor opens no connection. Any thread may call the methods; each blocks while Redis
    answers.

    :param url: of Redis 6.2 or later, or of Valkey: ``redis://``, ``rediss://`` or ``unix://``, a
        str; the query says which certificates are trusted (``?ssl_ca_certs=/path/to/ca.pem``). Or a
        :class:`redis.Redis` or a :class:`redis.RedisCluster` of your own, which is not closed.
    :param name: of the fleet, a str of letters of ASCII, digits, ``_``, ``.`` and ``-``. It stands
        in front of every key.
    :param lease: seconds after which others may claim the shards of a worker that is not heard of,
        0.001 or more. All workers have the same.
    :param keep_events: about how many events the stream of each shard keeps, an int; 100,000 are
        some 80 MB.
    :raises ValueError: if an argument has a value that cannot be; the message says which and why.
    :raises TypeError: if an argument has the wrong type.
    """

    def __init__(
        self, url: str | Client, name: str, *, lease: float = 6.0, keep_events: int = 100_000
    ) -> None:
        if check_positive("lease", lease) < _SHORTEST_LEASE:
            raise ValueError(f"lease must be at least {_SHORTEST_LEASE} seconds, not {lease}")
        if check_at_least_one("keep_events", keep_events) > _MOST_KEPT:
            raise ValueError(f"keep_events must be at most {_MOST_KEPT}, not {keep_events}")
        self._keys = Keys(name)
        self._url = url
        self._client = connect(url)
        self._lease = lease
        self._keep_events = keep_events

    def __repr__(self) -> str:
        return f"<Fleet {self._keys.name!r}>"  # the URL may have a password

    @property
    def name(self) -> str:
        """As it was given."""
        return self._keys.name

    def init(
        self,
        shard_count: int,
        *,
        max_concurrency: int = 1,
        session_start_limit: int = SESSION_START_LIMIT,
        remaining: int | None = None,
        reset_after: float = 86_400.0,
        identify_interval: float = IDENTIFY_INTERVAL,
    ) -> None:
        """Say what all workers agree on, before the first one starts. Twice the same does no harm.

        The log warns of what is risked with this Redis, as it does when a worker starts.

        :func:`shardlib.fetch_gateway_bot` returns Discord's numbers: `shards`, `max_concurrency`,
        `total`, `remaining` and `reset_after`. The workers count together how many sessions they
        start. None of them identifies a shard beyond 95 percent of the limit: the shard waits until
        Discord counts anew, and the log tells so at ERROR.

        :param shard_count: number of the bot's shards, an int from 1.
        :param max_concurrency: how many shards may identify at once, an int from 1.
        :param session_start_limit: sessions that Discord lets the bot start in 24 hours, an int.
        :param remaining: how many of these are left, an int, if the bot may have started some in
            another way than as this fleet; None for all but those that the workers have counted.
        :param reset_after: seconds until Discord counts anew; it counts with `remaining`.
        :param identify_interval: seconds between two Identifies of one rate limit key; for a
            gateway other than Discord's.
        :raises FleetError: if the fleet has another number of shards already; or if Redis is not
            fit for a fleet, or refuses.
        :raises RedisAway: if Redis does not answer.
        :raises ValueError: if an argument is negative, or is 0 and must not be, or `remaining` is
            above the limit.
        :raises TypeError: if an argument has the wrong type.
        """
        wanted = FleetConfig(shard_count, max_concurrency, session_start_limit, identify_interval)
        check_config(wanted)
        check_not_negative("reset_after", reset_after)
        check_type("remaining", remaining, int, optional=True)
        if remaining is not None and not 0 <= remaining <= session_start_limit:
            raise ValueError(
                "remaining must be from 0 up to session_start_limit, "
                f"{session_start_limit}, not {remaining}"
            )
        wanted = FleetConfig(
            shard_count, max_concurrency, session_start_limit, float(identify_interval)
        )
        for risk in check_server(self._client):
            _logger.warning("%s", risk)
        keep_config(self._client, self._keys, wanted)
        found = self._config()
        if found.shard_count != shard_count:
            raise FleetError(
                f"the fleet {self.name!r} has {found.shard_count} shards, and the number cannot be "
                "changed while it runs. Make a fleet of another name, and stop the workers of this "
                "one"
            )
        if found != wanted:
            try:
                settings: Any = wanted._asdict()
                self._client.hset(self._keys.config, mapping=settings)
            except ERRORS as error:
                raise fleet_error(error) from error
        if remaining is not None:
            gate = GateScripts(self._client, self._keys)
            gate.count_starts(session_start_limit - remaining, reset_after)

    def worker(
        self,
        token: str,
        intents: int,
        most_shards: int | None = None,
        *,
        buffer: int = 5_000,
        replay_memory: float = 5.0,
        forward: Container[str] | None = None,
        **options: Unpack[ShardOptions],
    ) -> Worker:
        """A worker, which runs a share of the shards in this process. It is not started yet.

        :param token: the bot's token, a str without ``Bot`` in front. It is never written to Redis.
        :param intents: what the bot wants to receive, :class:`shardlib.Intents` or an int.
        :param most_shards: the most shards that it takes, an int from 1; None for any number.
        :param buffer: events of each shard that wait here while Redis is away, an int; then the
            shard stops reading, and the Gateway keeps the rest for some minutes. There is room for
            2,000 bytes for each.
        :param replay_memory: seconds for which events are kept that were written. A Redis that has
            lost its newest writes is given them again; if it has lost more, the Gateway is asked.
        :param forward: the names of the events that are written to Redis, a set of str for example;
            None for all. The log warns of a name that looks misspelt.
        :param options: every ``on_socket_...`` callback and every option of
            :class:`shardlib.Shard` with the same meaning for each shard, but those that the worker
            sets itself: `shard_id`, `session`, `backoff`, `on_socket_text`, `acknowledge`,
            `session_gate`, `identify_gate`, `should_reconnect` and `dispatcher`.
        :raises ValueError: if an argument has a value that cannot be; the message says which and
            why.
        :raises TypeError: if an argument has the wrong type.
        """
        return Worker(
            self._connect,
            self._keys,
            token,
            intents,
            most_shards,
            lease=self._lease,
            keep_events=self._keep_events,
            buffer=buffer,
            replay_memory=replay_memory,
            forward=forward,
            **options,
        )

    def consumer(
        self,
        group: str,
        *,
        events: Iterable[str] | None = None,
        ordered: bool = True,
        start: str = "oldest",
        seen: Watermarks | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        retry_after: float = 60.0,
        name: str | None = None,
        json: JSONModule = ujson,
    ) -> Consumer:
        """An iterator over the fleet's events, which all consumers of a group share.

        Opens no connection yet. The first call that asks the :class:`Consumer` for an event waits
        for Redis, and for :meth:`init`, if they are not there yet.

        :param group: name of the group, a str of 1 to 100 letters of ASCII, digits, ``_``, ``.``
            and ``-``.
        :param events: the names of the events to hand out, an iterable of str; None for all. The
            data of other events is not decoded, and they count as handled. The log warns of a name
            that looks misspelt.
        :param ordered: True: the events of a shard come in order, one after the other, since one
            consumer at a time reads a shard's stream. False: any consumer gets any event, so that
            many slow ones help each other, without order. All consumers of a group have the same.
        :param start: where a group begins that is new: ``"oldest"``, at the oldest event that is
            kept, or ``"newest"``, with what comes after a consumer of the group was first asked for
            an event.
        :param seen: with `ordered`, where the user stores the id of the last event of each shard
            that had its effect, an object with a method ``get(shard_id)``. What it returns, unless
            it is None, counts more than what Redis knows.
        :param on_gap: called with a :class:`Gap` when events may be missing; an exception that it
            raises leaves the loop. Without it, an event of the name ``SHARDLIB_GAP`` is handed out,
            if `events` is None or names it; otherwise the log tells of the gap.
        :param retry_after: with ``ordered=False``, seconds after which an event that a consumer has
            not acknowledged goes to another one. The handling of an event has to take less; the log
            warns of one that took longer.
        :param name: of this consumer, as `group`; by default one that nobody else has.
        :param json: a module with ``loads``, for the data of events.
        :raises ValueError: if an argument has a value that cannot be; the message says which and
            why.
        :raises TypeError: if an argument has the wrong type.
        """
        client, is_own = self._connect()

        def shard_count() -> int:
            config = read_config(client, self._keys)
            return 0 if config is None else config.shard_count

        return Consumer(
            client,
            self._keys,
            group,
            shard_count=shard_count,
            lease=self._lease,
            keep_events=self._keep_events,
            events=events,
            ordered=ordered,
            start=start,
            seen=seen,
            on_gap=on_gap,
            retry_after=retry_after,
            name=name,
            json=json,
            owns_client=is_own,
        )

    def shards(self) -> list[FleetShardInfo]:
        """All shards of the fleet as Redis knows them, by number.

        :raises FleetError: if there is no such fleet, or Redis refuses.
        :raises RedisAway: if Redis does not answer.
        """
        shard_ids = range(self._config().shard_count)
        scripts = ShardScripts(
            self._client, self._keys, lease=self._lease, keep_events=self._keep_events
        )
        views = scripts.show(shard_ids)
        by_group = lags(self._client, self._keys, shard_ids)
        infos = []
        for shard_id, view in views.items():
            if isinstance(view, FleetError):
                raise view
            lag = {group: of_shards[shard_id] for group, of_shards in by_group.items()}
            infos.append(_shard_info(shard_id, view, lag))
        return infos

    def delete_group(self, group: str) -> None:
        """Delete a group of consumers that is needed no more: Redis forgets how far it has read.

        No event is deleted, and a consumer that is made with this name later begins a new group.

        :param group: name of the group, as :meth:`consumer` takes it.
        :raises FleetError: if a consumer of the group lives, or may live: one that was killed
            counts for the time of a lease, 6 seconds, and one with ``ordered=False`` for its
            `retry_after`; if there is no such group or no such fleet; or if Redis refuses.
        :raises RedisAway: if Redis does not answer. A part may be deleted then: call again.
        :raises ValueError: if `group` cannot be the name of a group.
        :raises TypeError: if `group` is not a str.
        """
        check_name("group", group)
        delete_group(self._client, self._keys, group, range(self._config().shard_count))

    @property
    def commands(self) -> Commands:
        """What any process may ask of the shards, and of their workers."""
        return Commands(self._client, self._keys, lambda: self._config().shard_count)

    def close(self) -> None:
        """Close the connections to Redis; a later call opens them again. Workers have their own."""
        if isinstance(self._url, str):
            self._client.close()

    def _config(self) -> FleetConfig:
        config = read_config(self._client, self._keys)
        if config is None:
            raise no_such_fleet(self.name)
        return config

    def _connect(self) -> tuple[Client, bool]:
        """A client for a worker or a consumer, and whether it is theirs alone."""
        return (connect(self._url), True) if isinstance(self._url, str) else (self._url, False)


def _shard_info(shard_id: int, view: ShardView, lag: Mapping[str, int | None]) -> FleetShardInfo:
    owner = view.owner if view.lease > 0 and view.owner else None
    return FleetShardInfo(
        shard_id,
        owner,
        None if owner is None else machine_of(owner),
        _STATES.get(view.state) if owner else None,
        view.ping if owner else None,
        view.lease,
        view.fence,
        view.session_id,
        view.session_age,
        view.sequence,
        view.events,
        lag,
    )

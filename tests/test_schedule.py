"""Schedule: which deliveries of a pool may be called beside each other."""

from __future__ import annotations

from shardlib.currentsession import CurrentSession
from shardlib.dispatch.schedule import Job, Schedule
from shardlib.dispatcher import Delivery


class Deliverer:
    def deliver(self, delivery: object) -> None: ...

    drop = wait_for_room = deliver

    def exit(self, delivery: object, error: BaseException) -> None: ...

    def wake(self) -> None: ...


def make_job(key: object = None, *, shard: object = "shard", alone: bool = False) -> Job:
    delivery = Delivery(Deliverer(), shard, CurrentSession(), "", (), alone=alone)
    return Job(delivery, None if key is None else (key,))


def take_all(schedule: Schedule) -> list[Job]:
    taken = []
    while (job := schedule.take()) is not None:
        taken.append(job)
    return taken


def add_all(schedule: Schedule, *jobs: Job) -> None:
    for job in jobs:
        schedule.add(job)


def test_jobs_without_a_key_may_all_run_at_once() -> None:
    schedule, jobs = Schedule(), [make_job() for _ in range(3)]
    add_all(schedule, *jobs)
    assert len(schedule) == 3
    assert take_all(schedule) == jobs
    assert len(schedule) == 0


def test_jobs_of_one_key_run_one_after_the_other_and_others_beside_them() -> None:
    schedule = Schedule()
    first, second, third, other = make_job("a"), make_job("a"), make_job("a"), make_job("b")
    add_all(schedule, first, second, third, other)
    assert take_all(schedule) == [first, other]
    schedule.done(other)
    assert take_all(schedule) == []
    schedule.done(first)
    assert take_all(schedule) == [second]
    schedule.done(second)
    assert take_all(schedule) == [third]
    assert not schedule.is_empty
    schedule.done(third)
    assert schedule.is_empty


def test_a_job_that_must_run_alone_waits_for_all_before_it_and_keeps_back_all_after_it() -> None:
    schedule = Schedule()
    before, with_key, alone, after = make_job(), make_job("a"), make_job(alone=True), make_job("a")
    add_all(schedule, before, with_key, alone, after)
    assert take_all(schedule) == [before, with_key]
    schedule.done(before)
    assert take_all(schedule) == []
    schedule.done(with_key)
    assert take_all(schedule) == [alone]
    later = make_job()
    schedule.add(later)
    assert take_all(schedule) == []
    schedule.done(alone)
    assert take_all(schedule) == [after, later]


def test_jobs_that_must_run_alone_come_in_order() -> None:
    schedule, jobs = Schedule(), [make_job(alone=True) for _ in range(3)]
    add_all(schedule, *jobs)
    for job in jobs:
        assert take_all(schedule) == [job]
        schedule.done(job)
    assert schedule.is_empty


def test_a_job_that_must_run_alone_keeps_back_its_own_shard_only() -> None:
    schedule = Schedule()
    alone, other = make_job(shard="one", alone=True), make_job(shard="other")
    add_all(schedule, alone, other)
    assert take_all(schedule) == [alone, other]


def test_a_key_is_kept_in_order_across_shards() -> None:
    schedule = Schedule()
    first, second = make_job("a", shard="one"), make_job("a", shard="other")
    add_all(schedule, first, second)
    assert take_all(schedule) == [first]
    schedule.done(first)
    assert take_all(schedule) == [second]

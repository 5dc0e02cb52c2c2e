"""Accept exactly what can be run: the limit of pending jobs, a store that does not answer, groups, quarantine."""

from __future__ import annotations

import signal
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from solstice.broker.enqueue import ResultListener
from solstice.broker.topology import RESULTS, Topology
from tests.broker.owner import consumers, waiting
from tests.e2e.conftest import Make
from tests.e2e.service import Service, dead_letters, encoded, raw_publish
from tests.real.broker import Broker
from tests.real.waiting import until

pytestmark = pytest.mark.broker

QUEUE = Topology().queue


def lasting(service: Service, seconds: float, **fields: str | bool | int) -> str:
    return service.submit("true", env={"NOOP_SECONDS": str(seconds)}, **fields)


def test_beyond_the_limit_requests_stay_in_the_queue_and_none_is_lost(host: Make) -> None:
    service = host(PENDING_LIMIT="5", MAX_CONCURRENCY="2", AMQP_PREFETCH="3")
    service.ask("pause")
    jobs = [service.submit("true") for _ in range(30)]
    until(lambda: consumers(service.amqp_url) == 0, seconds=30, what="the end of consuming", evidence=str)
    accepted = service.ask("status")["capacity"]["pending"]
    assert 5 <= accepted["used"] <= 5 + 3
    assert waiting(service.amqp_url, QUEUE) == 30 - accepted["used"]
    assert "PENDING_LIMIT" in service.ask("status")["intake"]
    service.ask("resume")
    for job in jobs:
        service.said(rf"attempt ended: succeeded .*job={job}")
    assert waiting(service.amqp_url, QUEUE) == 0
    assert not dead_letters(service.amqp_url)


def test_while_the_store_does_not_answer_nothing_is_taken_and_afterwards_all_of_it(host: Make) -> None:
    service = host(AMQP_PREFETCH="4", MAX_CONCURRENCY="4")
    store = service.child("solstice: store")
    store.send_signal(signal.SIGSTOP)
    try:
        jobs = [service.submit("true") for _ in range(12)]
        service.said("intake: deliveries wait: the store does not answer")
        # the broker still counts a consumer that was cancelled while it has something to ack
        until(lambda: not service.ask("status")["consuming"], seconds=30, what="the cancel", evidence=str)
        assert waiting(service.amqp_url, QUEUE) == 12 - 4
    finally:
        store.send_signal(signal.SIGCONT)
    for job in jobs:
        service.said(rf"attempt ended: succeeded .*job={job}")
    assert service.text.count("attempt ended: succeeded") == 12


def test_a_newer_job_cancels_a_pending_one_of_its_group_and_with_the_flag_a_running_one(host: Make) -> None:
    service = host(MAX_CONCURRENCY="4")
    group: dict[str, Any] = {"concurrency_group": "main"}
    first = lasting(service, 600, **group)
    service.said(rf"attempt is running .*job={first}")
    second = lasting(service, 600, **group)
    service.said(rf"job accepted .*job={second}")
    assert "of the same concurrency group has not ended" in service.ask("why", job=second)["why"]
    third = lasting(service, 0, **group)
    service.said(rf"job cancelled: superseded by job {third} .*job={second} .*cause=user.cancelled")
    fourth = service.outcome("true", cancel_in_progress=True, **group)
    assert fourth["state"] == "succeeded"
    service.said(rf"attempt ended: cancelled .*job={first} .*cause=user.cancelled")
    service.said(rf"job cancelled: superseded .*job={third}")


def test_another_repository_is_another_group(host: Make) -> None:
    service = host(MAX_CONCURRENCY="4")
    where = {"concurrency_group": "main", "commit_sha": "0" * 40}
    first = lasting(service, 600, repo_url="https://forge.example/a", **where)
    service.said(rf"attempt is running .*job={first}")
    lasting(service, 600, repo_url="https://forge.example/b", cancel_in_progress=True, **where)
    service.said("attempt is running", times=2)
    assert "superseded" not in service.text


def test_a_label_that_fails_again_and_again_is_quarantined_and_comes_back(host: Make) -> None:
    service = host(MAX_CONCURRENCY="4", CAPACITY_MAP="")
    refusal = service.state / "noop" / "refuse-tiny"
    refusal.write_text("no such network\n")
    for _ in range(3):
        assert service.outcome("true")["cause"] == "infra.hypervisor"
    began = time.monotonic()
    jobs = [service.submit("true") for _ in range(3)]
    service.said("job accepted", times=6)
    why = service.ask("why", job=jobs[0])
    assert "quarantine" in why["why"]
    assert "no such network" in why["why"]
    assert why["starts_in"] is None
    refusal.unlink()
    for job in jobs:
        service.said(rf"attempt ended: succeeded .*job={job}")
    assert time.monotonic() - began > 5
    assert service.ask("status")["labels"][0]["quarantine"] is None


def test_a_job_that_was_done_is_a_no_op_also_when_its_label_is_gone(host: Make) -> None:
    service = host()
    body = encoded(runs_on="tiny")
    raw_publish(service.amqp_url, body)
    service.said("attempt ended: succeeded")
    Path(service.environment["ORCH_CONFIG"]).write_text(
        "default_label: other\nimages:\n  other:\n    source: /x\n    local_path: /x\n"
    )
    service.process.send_signal(signal.SIGHUP)
    service.said("reloaded")
    raw_publish(service.amqp_url, body)
    service.said("request seen before, nothing to do .*state=succeeded")
    assert dead_letters(service.amqp_url) == []


def test_who_sent_what_was_rejected_is_told_by_the_requests_own_id_and_label(host: Make) -> None:
    service = host()
    request = str(uuid.uuid4())
    with ResultListener(service.amqp_url) as listener:
        # without a message id, as other clients send them
        raw_publish(service.amqp_url, encoded(runs_on="amiga", request_id=request))
        event = listener.wait(request, time.monotonic() + 60, lambda _event: None)
    assert event is not None
    assert (event["state"], event["label"], event["cause"]) == ("rejected", "amiga", "request.unschedulable")
    assert "which has tiny" in service.ask("why", job=request[:8])["why"]


def test_a_job_that_is_larger_than_the_host_is_refused_with_what_there_is(host: Make) -> None:
    service = host(MEMORY_RESERVE="1TiB")
    event = service.outcome("true")
    assert event["cause"] == "request.unschedulable"
    assert "it wants 1024 MiB, and this host gives 0 at most (MEMORY_RESERVE)" in event["detail"]


def test_with_the_broker_away_jobs_end_nothing_is_lost_and_memory_stays_flat(host: Make, broker: Broker) -> None:
    service = host(PENDING_LIMIT="400", MAX_CONCURRENCY="8", AMQP_PREFETCH="8", CAPACITY_MAP="", MAX_BOOTING="8")
    service.ask("pause")
    raw_publish(service.amqp_url, *(encoded() for _ in range(300)))
    service.said("job accepted", times=300)
    broker.stop()
    try:
        service.said("broker down: no connection")
        service.ask("resume")
        service.said("attempt is done", times=100)
        before = psutil.Process(service.process.pid).memory_info().rss
        service.said("attempt is done", times=300)
        grown = psutil.Process(service.process.pid).memory_info().rss - before
        assert service.text.count("broker down: no connection") == 1, "it is said once"
    finally:
        broker.start()
    assert grown < 5 << 20
    service.said("broker up", times=2)
    until(lambda: waiting(service.amqp_url, RESULTS) == 300, seconds=60, what="every result", evidence=str)

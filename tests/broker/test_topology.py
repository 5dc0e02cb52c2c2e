"""What is declared, as data."""

from __future__ import annotations

from solstice.broker.topology import Topology


def test_every_queue_is_durable_and_bound_after_its_exchange() -> None:
    declared: set[str] = set()
    bound: set[str] = set()
    for declaration in Topology().declarations:
        if declaration.method == "queue_bind":
            assert declaration.arguments["exchange"] in declared
            assert declaration.arguments["queue"] in declared
            bound.add(declaration.arguments["queue"])
        else:
            assert declaration.arguments["durable"]
            declared.add(declaration.subject.split(" ")[1])
    assert bound == {"solstice.jobs.v1", "solstice.jobs.v1.dlq", "solstice.results.v1"}


def test_the_job_queue_is_a_quorum_queue_without_a_delivery_limit() -> None:
    (arguments,) = [
        declaration.arguments["arguments"]
        for declaration in Topology().declarations
        if declaration.subject == "queue solstice.jobs.v1" and declaration.method == "queue_declare"
    ]
    assert arguments == {"x-queue-type": "quorum"}


def test_the_dead_letter_queue_follows_the_queues_name() -> None:
    assert Topology(queue="other").dead_letter_queue == "other.dlq"

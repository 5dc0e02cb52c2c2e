"""A host that is full for minutes, on RabbitMQ 3 and on 4, which dead-letters what came back to its queue too often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from solstice.broker.topology import Topology
from tests.broker.owner import waiting
from tests.e2e.service import Service, dead_letters, encoded, raw_publish
from tests.real.waiting import until

pytestmark = pytest.mark.broker

BEHIND = 500
SECONDS = "0.05"


@pytest.fixture(params=["broker", "broker4"])
def url(request: pytest.FixtureRequest) -> str:
    """A virtual host of each version of RabbitMQ."""
    url: str = request.getfixturevalue(request.param).new_vhost()
    return url


@pytest.fixture
def crowded(reachable: Path, url: str) -> Iterator[Service]:
    """A host with two slots and little room for those that wait, so that it cancels and resumes again and again."""
    image_map = "default_label: full\nimages:\n" + "".join(
        f"  {name}:\n    source: /x/{name}\n    local_path: /x/{name}\n" for name in ("full", "free")
    )
    service = Service(
        reachable,
        url,
        None,
        image_map,
        MAX_CONCURRENCY="3",
        CAPACITY_MAP="full=2",
        PENDING_LIMIT="80",
        AMQP_PREFETCH="3",
    )
    service.start()
    yield service
    service.close()


def test_five_hundred_messages_behind_a_full_host_all_run_and_none_is_dead_lettered(crowded: Service) -> None:
    env = {"NOOP_SECONDS": SECONDS}
    raw_publish(crowded.amqp_url, *(encoded(env=env) for _ in range(BEHIND)))
    until(lambda: not crowded.ask("status")["consuming"], seconds=60, what="a full host", evidence=str)
    assert waiting(crowded.amqp_url, Topology().queue) >= BEHIND - 80 - 10
    crowded.said("attempt ended: succeeded", times=BEHIND, seconds=300)
    assert waiting(crowded.amqp_url, Topology().queue) == 0
    assert dead_letters(crowded.amqp_url) == []


def test_one_of_a_free_label_behind_sixty_of_a_full_one_starts_within_a_second(crowded: Service) -> None:
    raw_publish(crowded.amqp_url, *(encoded(env={"NOOP_SECONDS": "600"}) for _ in range(60)))
    crowded.said("job accepted", times=60)
    crowded.said("attempt is running", times=2)
    free = crowded.submit("true", runs_on="free")
    crowded.said(rf"attempt ended: succeeded .*job={free}")
    job = crowded.ask("job", job=free)["job"]
    assert job["started_at"] - job["accepted_at"] < 1.0

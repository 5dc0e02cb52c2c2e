"""Jobs for the tests of the pure parts: only what a test names differs from the next one's."""

from __future__ import annotations

import itertools
import uuid
from pathlib import Path

from solstice.model import Image, JobRequest, Resources, Step
from solstice.supervisor.jobs import Job

_TIMES = itertools.count(1)
# In the order in which they are made, so that a test which goes by the order of ids can be repeated.
_IDS = itertools.count(1)


def job(
    image: str = "a",
    *,
    repo: str = "",
    priority: int = 5,
    resources: Resources = Resources(),  # noqa: B008 - it is frozen
    since: float | None = None,
    group: str = "",
) -> Job:
    """A pending job; without `since` each is a thousandth of a second younger than the one before."""
    request = JobRequest(
        str(uuid.UUID(int=next(_IDS))),
        image,
        (Step("one", "true"),),
        repo_url=repo,
        priority=priority,
        concurrency_group=group,
    )
    at = next(_TIMES) / 1000 if since is None else since
    return Job(request, image, Image(image, "/x", Path("/x")), resources, at)

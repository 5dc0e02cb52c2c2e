"""Is there a slot?  Pure: the answer follows from the limits and from the attempts that are not done.

Counted anew each time from the attempts themselves, held and cleaning ones too, never from a number that is bumped
up and down: such a number drifts with the first path that forgets it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capacity:
    """`per_image` limits some images; an image that is not in it is limited by `total` alone."""

    total: int
    per_image: Mapping[str, int]

    def obstacle(self, image: str, running: Collection[str]) -> str | None:
        """Why no further VM of `image` may start beside those of the images `running`; None if it may."""
        if len(running) >= self.total:
            return f"all {self.total} slots of this host are taken (MAX_CONCURRENCY)"
        limit = self.per_image.get(image, self.total)
        if sum(name == image for name in running) >= limit:
            return f"all {limit} slots of {image} are taken (CAPACITY_MAP)"
        return None

"""What this host offers: labels, sizes and how much of everything.  Made anew when the configuration is read again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from solstice.config.configuration import Configuration
from solstice.config.imagemap import ImageMap
from solstice.errors import Cause, RequestError
from solstice.host.machine import Machine
from solstice.model import Image, JobRequest
from solstice.supervisor.capacity import Limits
from solstice.supervisor.jobs import Job

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Catalogue:
    image_map: ImageMap
    limits: Limits

    def job(self, request: JobRequest, since: float, attempt: int = 1) -> Job:
        """The job that a request describes on this host; `since` is when it was accepted, in monotonic seconds.

        Raises `RequestError` if it can never run here.
        """
        image = self.image_map.resolve(request.runs_on)
        if image is None:
            labels = ", ".join(self.image_map.labels())
            raise RequestError(
                f"runs_on: {request.runs_on} is no label of this host, which has {labels}", Cause.UNSCHEDULABLE
            )
        resources = self.image_map.resources(request.size, image)
        if (why := self.limits.impossible(resources)) is not None:
            what = f"size: {request.size}" if request.size else f"runs_on: the image {image.name}"
            raise RequestError(f"{what} does not fit: {why}", Cause.UNSCHEDULABLE, "ask for a smaller size")
        return Job(request, request.runs_on or self.image_map.default_label, image, resources, since, attempt)

    def job_as_it_was(self, request: JobRequest, image: str, since: float, attempt: int, failures: int) -> Job:
        """The job of an attempt that began under an earlier configuration, whatever this one says."""
        try:
            job = self.job(request, since, attempt)
        except RequestError:
            known = self.image_map.images.get(image) or Image(image, "", Path())
            job = Job(request, request.runs_on or image, known, known.resources, since, attempt)
        job.failures = failures
        return job

    def image_of(self, label: str) -> str | None:
        """The name of the image that a label stands for, None if there is no such label."""
        image = self.image_map.resolve(label) if label else None
        return image.name if image else None


def catalogue(configuration: Configuration, machine: Machine) -> Catalogue:
    """What `machine` offers under this configuration."""
    settings = configuration.settings
    return Catalogue(
        configuration.image_map,
        Limits(
            slots=settings.max_concurrency,
            per_image=_per_image(settings.capacity_map, configuration.image_map),
            booting=settings.max_booting,
            cpus=machine.cpus * settings.cpu_overcommit,
            memory_mib=max(0, machine.memory_mib - settings.memory_reserve),
            disk_mib=machine.disk_mib,
            disk_floor_mib=settings.disk_floor,
        ),
    )


def _per_image(capacity_map: Mapping[str, int], image_map: ImageMap) -> dict[str, int]:
    """CAPACITY_MAP by image: an alias counts for what it resolves to, and of two figures the smaller holds."""
    limits: dict[str, int] = {}
    for label, limit in capacity_map.items():
        image = image_map.resolve(label)
        if image is None:
            log.debug("CAPACITY_MAP names a label that the image map does not have", extra={"label": label})
        else:
            limits[image.name] = min(limit, limits.get(image.name, limit))
    return limits

"""What fits on this host.  Pure: the answer follows from the limits and from the attempts that are not done.

Counted anew each time from the attempts themselves, held and cleaning ones too, never from a number that is bumped
up and down: such a number drifts with the first path that forgets it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from solstice.model import Resources

_MIB_PER_GIB = 1024


class Resource(StrEnum):
    """What a job can be short of."""

    SLOTS = "slots"
    LABEL = "label"
    BOOTING = "booting"
    CPUS = "cpus"
    MEMORY = "memory"
    DISK = "disk"
    OTHER = "other"
    """Not of capacity: its image, a pause, a quarantine, its concurrency group."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a job does not start, for the scheduler and for people."""

    resource: Resource
    text: str

    @property
    def is_everybodys(self) -> bool:
        """No other job could start either."""
        return self.resource in (Resource.SLOTS, Resource.BOOTING)

    @property
    def depends_on_size(self) -> bool:
        """A smaller job might start where this one cannot, and so overtake it."""
        return self.resource in (Resource.CPUS, Resource.MEMORY, Resource.DISK)


@dataclass(frozen=True, slots=True)
class Claim:
    """What one VM takes."""

    image: str
    resources: Resources


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be given out.  An image that is not in `per_image` is limited by `slots` alone.

    `cpus` are virtual ones, with the overcommit in it; `memory_mib` is without the host's reserve; `disk_mib` is the
    size of the file system that the state directory is on.
    """

    slots: int
    per_image: Mapping[str, int]
    booting: int
    cpus: float
    memory_mib: int
    disk_mib: int
    disk_floor_mib: int

    def impossible(self, wanted: Resources) -> str | None:
        """Why not even an empty host could run this; None if it could."""
        if wanted.cpus > self.cpus:
            return f"it wants CPUs: {wanted.cpus}, and this host gives {self.cpus:g} at most (CPU_OVERCOMMIT)"
        if wanted.memory_mib > self.memory_mib:
            return f"it wants {wanted.memory_mib} MiB, and this host gives {self.memory_mib} at most (MEMORY_RESERVE)"
        if wanted.disk_gib * _MIB_PER_GIB + self.disk_floor_mib > self.disk_mib:
            room = max(0, self.disk_mib - self.disk_floor_mib) // _MIB_PER_GIB
            return f"it wants {wanted.disk_gib} GiB of disk, and this host gives {room} at most (DISK_FLOOR)"
        return None


class Usage:
    """What is taken at one moment; grows as one pass of the scheduler gives out more.

    Of disk, what a size or an image declares counts as promised in whole.  What a guest has written of it is missing
    from `free_disk_mib` too and so counts twice: too careful is right here, for a full disk hurts every job.
    """

    def __init__(self, limits: Limits, free_disk_mib: int) -> None:
        self._limits = limits
        self.slots = 0
        self.booting = 0
        self.cpus = 0
        self.memory_mib = 0
        self.promised_mib = 0
        self.free_disk_mib = free_disk_mib
        self.per_image: Counter[str] = Counter()
        self._reserved_for = ""

    def add(self, claim: Claim, *, booting: bool) -> None:
        """A VM is there."""
        self.slots += 1
        self.booting += booting
        self.per_image[claim.image] += 1
        self._take(claim)

    def reserve(self, claim: Claim, job: str) -> None:
        """This job waits for so much, and nobody may take it before."""
        self._take(claim)
        self._reserved_for = f", the rest is reserved for job {job[:8]}"

    def _take(self, claim: Claim) -> None:
        self.cpus += claim.resources.cpus
        self.memory_mib += claim.resources.memory_mib
        self.promised_mib += claim.resources.disk_gib * _MIB_PER_GIB

    def obstacle(self, claim: Claim) -> Obstacle | None:
        """Why this VM may not start beside the others; None if it may."""
        limits, image, wanted = self._limits, claim.image, claim.resources
        if (full := self.full()) is not None:
            return full
        limit = limits.per_image.get(image, limits.slots)
        if self.per_image[image] >= limit:
            return Obstacle(Resource.LABEL, f"all slots of {image} are taken, {limit} (CAPACITY_MAP)")
        if self.cpus + wanted.cpus > limits.cpus:
            free = max(0.0, limits.cpus - self.cpus)
            text = f"it wants CPUs: {wanted.cpus}, {free:g} of {limits.cpus:g} are free{self._reserved_for}"
            return Obstacle(Resource.CPUS, f"{text} (CPU_OVERCOMMIT)")
        if self.memory_mib + wanted.memory_mib > limits.memory_mib:
            left = max(0, limits.memory_mib - self.memory_mib)
            text = f"it wants {wanted.memory_mib} MiB of memory, {left} of {limits.memory_mib} are free"
            return Obstacle(Resource.MEMORY, f"{text}{self._reserved_for} (MEMORY_RESERVE)")
        return self._disk_obstacle(wanted.disk_gib * _MIB_PER_GIB)

    def could_fit(self, claim: Claim) -> bool:
        """Whether there would be room if every VM of ours were gone: a disk may be full of other things."""
        wanted_mib = claim.resources.disk_gib * _MIB_PER_GIB
        return self.free_disk_mib - self._limits.disk_floor_mib >= wanted_mib

    def full(self) -> Obstacle | None:
        """Why no VM at all may start; None if one may, its size and label apart."""
        limits = self._limits
        if self.slots >= limits.slots:
            return Obstacle(Resource.SLOTS, f"all slots of this host are taken, {limits.slots} (MAX_CONCURRENCY)")
        if self.booting >= limits.booting:
            return Obstacle(Resource.BOOTING, f"as many VMs boot as may, {limits.booting} (MAX_BOOTING)")
        return None

    def _disk_obstacle(self, wanted_mib: int) -> Obstacle | None:
        floor, free = self._limits.disk_floor_mib, self.free_disk_mib
        if free < floor:
            return Obstacle(Resource.DISK, f"{free} MiB of disk are free, less than the floor of {floor} (DISK_FLOOR)")
        room = free - floor - self.promised_mib
        if wanted_mib and wanted_mib > room:
            text = f"it wants {wanted_mib} MiB of disk, {max(0, room)} are neither promised nor below the floor"
            return Obstacle(Resource.DISK, f"{text}{self._reserved_for} (DISK_FLOOR)")
        return None

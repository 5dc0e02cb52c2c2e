"""The supervisor's end of the images process: which image is ready, and why another is not."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable

from solstice.images import messages
from solstice.model import Image
from solstice.protocol.lines import Message
from solstice.supervisor.child import Child
from solstice.supervisor.streams import Stream

log = logging.getLogger(__name__)


class Images:
    """`on_change` is called with an image's name when it becomes ready or fails, `on_candidate` with a new version of
    one that is to boot before it is used: `tested` says whether it did."""

    def __init__(
        self,
        on_change: Callable[[str], None],
        on_candidate: Callable[[messages.Candidate], None] = lambda _candidate: None,
    ) -> None:
        self._configure = messages.Configure(())
        self._on_change = on_change
        self._on_candidate = on_candidate
        network = {name: value for name, value in os.environ.items() if name.upper() in messages.NETWORK}
        self._child = Child("solstice.images", self._on_start, self._on_message, environment=network)
        self._wanted: set[str] = set()
        self.ready: dict[str, messages.Ready] = {}
        self.failed: dict[str, messages.Failed] = {}
        self.progress: dict[str, messages.Progress] = {}
        self.candidates: dict[str, messages.Candidate] = {}
        self.not_refreshed: dict[str, messages.NotRefreshed] = {}

    def fetch(self, images: Iterable[Image]) -> None:
        """Which images this host is to have, the most urgent first.  Those that are ready stay so meanwhile."""
        self._configure = messages.Configure(tuple(images))
        wanted = {image.name for image in self._configure.images}
        for known in (self.ready, self.failed, self.progress, self.candidates, self.not_refreshed):
            for name in known.keys() - wanted:
                del known[name]
        if self._child.stream is not None:
            self._on_start(self._child.stream)

    def start(self) -> None:
        self._child.start()

    def look_again(self, name: str) -> None:
        """Somebody has changed the versions of this image, or what kept it from being had."""
        self._say(messages.Retry(name))

    def want(self, name: str) -> None:
        """A job waits for this image."""
        if name not in self.ready:
            self._wanted.add(name)
            self._say(messages.Wanted(name))

    def tested(self, candidate: messages.Candidate, ok: bool, why: str) -> None:
        """How the boot test of a candidate went.  A child that was started again meanwhile asks for another one."""
        self.candidates.pop(candidate.image, None)
        self._say(messages.Tested(candidate.image, candidate.path, ok, why))

    async def close(self) -> None:
        await self._child.close()

    def state(self, name: str) -> str:
        """What a person is told of one image."""
        if name in self.ready:
            return self._state_of_ready(name)
        if name in self.candidates:
            return "being tested: it boots once before it is used"
        if name in self.failed:
            return f"failed: {self.failed[name].why}"
        if name not in self.progress:
            return "waiting"
        percent = self.progress[name].percent
        return "fetching" if percent is None else f"fetching {percent}%"

    def _state_of_ready(self, name: str) -> str:
        if name in self.not_refreshed:
            return f"ready, not refreshed: {self.not_refreshed[name].why}"
        return "ready, a newer version is being tested" if name in self.candidates else "ready"

    def _say(self, order: messages.Order) -> None:
        """Without a child nothing is lost: the next one looks at every image."""
        if self._child.stream is not None:
            self._child.stream.send(messages.encode(order))

    def _on_start(self, stream: Stream) -> None:
        stream.send(messages.encode(self._configure))
        for name in self._wanted:
            stream.send(messages.encode(messages.Wanted(name)))

    def _on_message(self, message: Message) -> None:
        match messages.report(message):
            case messages.Progress() as progress:
                self.progress[progress.image] = progress
            case messages.Ready() as ready:
                self.ready[ready.image] = ready
                self._wanted.discard(ready.image)
                self.failed.pop(ready.image, None)
                self.not_refreshed.pop(ready.image, None)
                log.info("image is ready", extra={"image": ready.image, "path": str(ready.path)})
                self._on_change(ready.image)
            case messages.Candidate() as candidate:
                self.candidates[candidate.image] = candidate
                self._on_candidate(candidate)
            case messages.NotRefreshed() as kept:
                self.not_refreshed[kept.image] = kept
                log.warning("image cannot be refreshed: %s (%s)", kept.why, kept.remedy, extra={"image": kept.image})
            case messages.Failed() as failed:
                self.candidates.pop(failed.image, None)
                self.failed[failed.image] = failed
                # it may have been ready before: a child that is started again looks at every image anew
                self.ready.pop(failed.image, None)
                log.error("image cannot be had: %s (%s)", failed.why, failed.remedy, extra={"image": failed.image})
                self._on_change(failed.image)

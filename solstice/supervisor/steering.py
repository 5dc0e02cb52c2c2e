"""What the control socket's changing commands do: cancel a job, pause and resume labels or the host, drain it, look at
images again.

A pause is kept in the state directory, for the next start must not undo what an operator wanted; a drain is not, for
it is what one does before a restart.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from solstice.errors import UsageError
from solstice.lifecycle import JobState
from solstice.protocol.lines import Message
from solstice.supervisor import pauses, tasks
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.valve import Valve
from solstice.supervisor.view import View

log = logging.getLogger(__name__)


class Steering:
    def __init__(self, dispatch: Dispatch, valve: Valve, view: View, kept: Path) -> None:
        self._dispatch = dispatch
        self._valve = valve
        self._view = view
        self._kept = kept
        self._over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._quiet: asyncio.Task[None] | None = None

    async def cancel(self, asked: Message) -> Any:
        """End a job that has not ended.  Raises `UsageError` if it has, or is not known."""
        row = (await self._view.find(str(asked.get("job"))))["job"]
        if not self._dispatch.cancel(row["id"], "cancelled by an operator of the host"):
            why = f"it is {row['state']}" if JobState(row["state"]).is_terminal else "it is about to end"
            raise UsageError(f"job {row['id'][:8]}", why, "see `solstice show`")
        return {"job": row["id"], "state": row["state"]}

    async def pause(self, asked: Message) -> Any:
        """Start no job of a label, or none at all; what runs goes on, what waits stays."""
        labels, image = self._dispatch.scheduler.labels, self._image(asked)
        if image is None:
            labels.all_paused = True
        else:
            labels.paused.add(image)
        return self._changed("paused", image)

    async def resume(self, asked: Message) -> Any:
        """Undo a pause, and of a label its quarantine too; of the host also a drain."""
        labels, image = self._dispatch.scheduler.labels, self._image(asked)
        if image is None:
            labels.all_paused = self._valve.draining = False
            if not self._over.done():
                self._over.set_result(False)
        else:
            labels.resume(image)
        return self._changed("resumed", image)

    async def images(self, asked: Message) -> Any:
        """→ `[{"name", "state", "path", "digest"}, …]`; the images in `look` are looked at again now.

        Raises `UsageError` if one of those is not of this host.
        """
        images, known = self._dispatch.images, self._dispatch.catalogue.image_map.images
        for name in asked.get("look", ()):
            if name not in known:
                raise UsageError(f"image {name!s:.80}", "this host has no such image", f"it has {', '.join(known)}")
            images.look_again(name)
        return [self._image_now(name) for name in sorted(known)]

    def _image_now(self, name: str) -> dict[str, Any]:
        ready = self._dispatch.images.ready.get(name)
        return {
            "name": name,
            "state": self._dispatch.image_state(name),
            "path": str(ready.path) if ready is not None else None,
            "digest": ready.digest if ready is not None else None,
        }

    async def drain(self, asked: Message) -> Any:
        """Take nothing new and finish what was accepted; with `wait`, answer when that is done.

        Raises `UsageError` if somebody resumes the host meanwhile.
        """
        drained = self.begin_drain()
        if asked.get("wait") and not await drained:
            raise UsageError("the drain was undone", "somebody resumed this host", "drain it again")
        scheduler = self._dispatch.scheduler
        return {"active": len(scheduler.active), "pending": len(scheduler.pending)}

    def begin_drain(self) -> asyncio.Future[bool]:
        """Drain; the future is true when that is done, and false when it was undone."""
        if not self._valve.draining:
            log.info("draining: nothing new is taken, what was accepted is finished")
            self._over = asyncio.get_running_loop().create_future()
            self._valve.draining = True
            self._valve.look()
            self._quiet = tasks.start(self._look_when_quiet(), "drain")
        self.look()
        return asyncio.shield(self._over)

    def look(self) -> None:
        """Something changed: is the drain done?  Jobs that are paused do not hold it up; they wait in the store."""
        if self._valve.draining and self._valve.is_quiet and self._dispatch.is_idle and not self._over.done():
            self._over.set_result(True)

    async def _look_when_quiet(self) -> None:
        await self._valve.not_consuming()
        self.look()
        waiting = self._dispatch.waiting()
        if waiting:
            log.info("the drain waits for jobs", extra={"count": len(waiting), "first": waiting[0].id})

    def _image(self, asked: Message) -> str | None:
        """The image of the label that was named; None if none was.  Raises `UsageError` for an unknown one."""
        label = asked.get("label")
        if label is None:
            return None
        if label in self._dispatch.scheduler.labels.paused:  # also if it has left the image map since
            return str(label)
        image = self._dispatch.catalogue.image_of(str(label))
        if image is None:
            known = ", ".join(self._dispatch.catalogue.image_map.labels())
            raise UsageError(f"label {label!s:.80}", "this host has no such label", f"it has {known}")
        return image

    def _changed(self, what: str, image: str | None) -> Any:
        labels = self._dispatch.scheduler.labels
        log.info("%s: %s", what, image or "the host")
        self._valve.look()
        self._dispatch.scheduler.pump()
        self.look()
        pauses.keep(labels, self._kept)
        return {"paused": sorted(labels.paused), "host": labels.all_paused}

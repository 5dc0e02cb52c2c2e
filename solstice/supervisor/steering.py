"""What the control socket's changing commands do: cancel a job, pause and resume labels or the host, drain it.

A pause is kept in the state directory, for the next start must not undo what an operator wanted; a drain is not, for
it is what one does before a restart.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from solstice.errors import UsageError
from solstice.host import files
from solstice.protocol.lines import Message
from solstice.supervisor.dispatch import Dispatch
from solstice.supervisor.valve import Valve
from solstice.supervisor.view import View

_HOST = "*"

log = logging.getLogger(__name__)


class Steering:
    def __init__(self, dispatch: Dispatch, valve: Valve, view: View, kept: Path) -> None:
        self._dispatch = dispatch
        self._valve = valve
        self._view = view
        self._kept = kept
        self._over = asyncio.Event()
        self._restore()

    async def cancel(self, asked: Message) -> Any:
        """End a job that has not ended.  Raises `UsageError` if it has, or is not known."""
        row = (await self._view.find(str(asked.get("job"))))["job"]
        if not self._dispatch.cancel(row["id"], "cancelled by an operator of the host"):
            raise UsageError(f"job {row['id'][:8]}", f"it is {row['state']} or about to be", "see `solstice show`")
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
            self._over.set()
        else:
            labels.resume(image)
        return self._changed("resumed", image)

    async def drain(self, asked: Message) -> Any:
        """Take nothing new and finish what was accepted; with `wait`, answer when that is done.

        Raises `UsageError` if somebody resumes the host meanwhile.
        """
        self.begin_drain()
        if asked.get("wait") and not await self.drained():
            raise UsageError("the drain was undone", "somebody resumed this host", "drain it again")
        scheduler = self._dispatch.scheduler
        return {"active": len(scheduler.active), "pending": len(scheduler.pending)}

    def begin_drain(self) -> None:
        log.info("draining: nothing new is taken, what was accepted is finished")
        self._over.clear()
        self._valve.draining = True
        self._valve.look()
        self.look()

    async def drained(self) -> bool:
        """Wait until nothing of a drain is left to do; False if it was undone."""
        await self._over.wait()
        return self._valve.draining

    def look(self) -> None:
        """Something changed: is the drain done?  Jobs that are paused do not hold it up; they wait in the store."""
        if not self._valve.draining:
            return
        scheduler = self._dispatch.scheduler
        labels = scheduler.labels
        waiting = [job for job in scheduler.pending.values() if job.image.name not in labels.paused]
        if not scheduler.active and (labels.all_paused or not waiting):
            self._over.set()

    def _image(self, asked: Message) -> str | None:
        """The image of the label that was named; None if none was.  Raises `UsageError` for an unknown one."""
        label = asked.get("label")
        if label is None:
            return None
        image = self._dispatch.catalogue.image_of(str(label))
        if image is None:
            known = ", ".join(self._dispatch.catalogue.image_map.labels())
            raise UsageError(f"label {label!s:.80}", "this host has no such label", f"it has {known}")
        return image

    def _changed(self, what: str, image: str | None) -> Any:
        labels = self._dispatch.scheduler.labels
        log.info("%s: %s", what, image or "the host")
        self._keep([*sorted(labels.paused), *([_HOST] if labels.all_paused else [])])
        self._valve.look()
        self._dispatch.scheduler.pump()
        return {"paused": sorted(labels.paused), "host": labels.all_paused}

    def _keep(self, names: Iterable[str]) -> None:
        try:
            files.replace(self._kept, json.dumps(list(names)) + "\n")
        except OSError as error:
            raise UsageError(
                "it holds until the next start only", f"{self._kept}: {error.strerror}", "free space, then repeat it"
            ) from None

    def _restore(self) -> None:
        labels = self._dispatch.scheduler.labels
        try:
            names = [str(name) for name in json.loads(self._kept.read_text())]
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            log.error("what was paused is not known any more: %s", error, extra={"file": str(self._kept)})
            return
        labels.paused = set(names) - {_HOST}
        labels.all_paused = _HOST in names
        if names:
            log.warning("paused since before this start: %s", ", ".join(names))

"""What the host and the runner in the guest say to each other.  Bytes in, events out; calls in, bytes out; no I/O.

The session feeds `Decoder` with all that the carrier delivers and sends what the functions below return; it owns the
carrier, the deadlines and the two secrets.  `solstice/runner/guest.sh` is the other side, and speaks only this.

Guest to host: raw bytes of output, and between them records, 0x1E NONCE JSON LF (after RFC 7464).  The nonce is
empty in the first hello, because the guest has none yet, and the attempt's own in everything after it.  A record of
a guest that came back from a reboot has the attempt's guard in that place: the nonce died with the first runner.
Whoever only prints knows neither secret, so the rule is short: **what is not a genuine record is output**.  A forged
record, a second hello, another job's transcript, one that is too long or does not parse: all arrive whole, as output.
`guest_at` is the guest's own time, in whole seconds since the epoch, if its record says one: the guest may lie.

Host to guest: lines NAME='VALUE', quoted for `sh` by `quote`; the line of `verb` completes a message, and counted
blocks follow it where a field says how long they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from solstice.errors import InternalError

PROTOCOL = 1

# The index that the end of a checkout has, which is no step of the request.
CHECKOUT = -1

# A record, from its 0x1E to its LF.  The runner's own are a tenth of it; the rest is room for later fields.
MAX_RECORD = 4096

_RS = b"\x1e"
_SECRET = re.compile(r"[0-9a-f]{32}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAX_INDEX = 1_000_000
# The last second of the year 9999: what any reader of a time can show.
_MAX_TIME = 253_402_300_799


class Unsendable(InternalError):
    """A value that a line, or a POSIX shell, cannot carry.  Requests with such values are refused long before."""


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that a step, or anything else in the guest, printed."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Hello:
    """The runner is there.  `system` is what `uname -s -r -m` says in the guest."""

    protocol: int
    system: str
    guest_at: int | None = None


@dataclass(frozen=True, slots=True)
class StepStart:
    """Step `index` (or `CHECKOUT`) begins: what comes from now on may be its output."""

    index: int
    guest_at: int | None = None


@dataclass(frozen=True, slots=True)
class StepEnd:
    """Step `index` (or `CHECKOUT`) ended, and all that it wrote before it ended has come.

    `exit_code` is the shell's: 128+N for a signal N; 127 from a checkout in a guest that has no git.
    """

    index: int
    exit_code: int
    guest_at: int | None = None


@dataclass(frozen=True, slots=True)
class Bye:
    """The answer to `bye`: everything that was written before it has come."""


@dataclass(frozen=True, slots=True)
class Rebooted:
    """The runner started a second time in this guest, and runs nothing."""


Event = Output | Hello | StepStart | StepEnd | Bye | Rebooted


class Decoder:
    """Takes the guest's bytes apart into events; `nonce` and `guard` are 32 hex digits each, and differ."""

    def __init__(self, nonce: str, guard: str) -> None:
        if nonce == guard or not (_SECRET.fullmatch(nonce) and _SECRET.fullmatch(guard)):
            raise InternalError("unusable secrets for a runner", "nonce and guard are 32 hex digits each, and differ")
        self.nonce = nonce
        self.guard = guard
        # A record has no 0x1E inside (JSON has no raw control characters), so none can begin inside another, and
        # the only place where one can be incomplete is the last 0x1E of what has come.
        self._record = re.compile(f"\x1e({nonce}|{guard}|)(\\{{[^\n\x1e]*+)\n".encode())
        self._starts = tuple(_RS + key.encode() + b"{" for key in (nonce, guard, ""))
        self._greeted = False
        self._held = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes.  Only what may still become a record is kept, less than `MAX_RECORD`."""
        data = self._held + data
        events: list[Event] = []
        taken = searched = 0
        while match := self._record.search(data, searched):
            searched = match.end()
            event = self._genuine(match)
            if event is not None:
                events += [*_output(data[taken : match.start()]), event]
                taken = searched
        last = data.rfind(_RS, searched)
        end = last if last >= 0 and self._may_become_record(data[last : last + MAX_RECORD]) else len(data)
        self._held = data[end:]
        return events + _output(data[taken:end])

    def flush(self) -> bytes:
        """At the end of the stream: what was kept, which is output, because nothing follows that makes it a record."""
        rest, self._held = self._held, b""
        return rest

    def _may_become_record(self, tail: bytes) -> bool:
        starts = self._starts[: 2 if self._greeted else 3]
        short = len(tail) < MAX_RECORD and b"\n" not in tail
        return short and any(start.startswith(tail) or tail.startswith(start) for start in starts)

    def _genuine(self, match: re.Match[bytes]) -> Event | None:
        """The event of a record that is one, or None if the bytes only look like it."""
        if len(match[0]) > MAX_RECORD or (not match[1] and self._greeted):
            return None
        try:
            fields = json.loads(match[2])
        except (ValueError, RecursionError):
            return None
        if match[1] == self.nonce.encode():
            return _of_attempt(fields)
        if match[1] == self.guard.encode():
            return Rebooted() if fields.get("type") == "rebooted" else None
        hello = _hello(fields)
        self._greeted = hello is not None
        return hello


def _output(data: bytes) -> list[Event]:
    return [Output(data)] if data else []


def _of_attempt(fields: Mapping[str, Any]) -> Event | None:
    index, exit_code = fields.get("index"), fields.get("exit_code")
    match fields.get("type"):
        case "step_start" if _whole(index, CHECKOUT, _MAX_INDEX):
            return StepStart(index, _guest_at(fields))
        case "step_end" if _whole(index, CHECKOUT, _MAX_INDEX) and _whole(exit_code, 0, 255):
            return StepEnd(index, exit_code, _guest_at(fields))
        case "bye":
            return Bye()
    return None


def _hello(fields: Mapping[str, Any]) -> Hello | None:
    protocol, system = fields.get("protocol"), fields.get("system")
    if fields.get("type") == "hello" and _whole(protocol, 0, 1000) and isinstance(system, str):
        return Hello(protocol, system, _guest_at(fields))
    return None


def _guest_at(fields: Mapping[str, Any]) -> int | None:
    at = fields.get("at")
    return at if _whole(at, 0, _MAX_TIME) else None


def _whole(value: object, least: int, most: int) -> TypeGuard[int]:
    return type(value) is int and least <= value <= most


def quote(value: str) -> str:
    """`value` as one word of any POSIX shell.  Raises `Unsendable` for a NUL, which no shell's variable can hold."""
    if "\0" in value:
        raise Unsendable("cannot give a value to the guest", f"it contains a NUL character: {value[:40]!r}")
    return "'" + value.replace("'", "'\\''") + "'"


def welcome(nonce: str, guard: str) -> bytes:
    """The answer to hello: the two secrets of this attempt."""
    return _message("welcome", nonce=nonce, guard=guard)


def checkout(url: str, sha: str, ref: str = "") -> bytes:
    """Fetch exactly commit `sha` (the full name, lower case); `ref` helps where a server gives only what refs reach."""
    return _message("checkout", url=url, sha=sha, ref=ref)


def step(index: int, env: Mapping[str, str], script: str) -> bytes:
    """Run `script` with `sh -e`, with the variables of `env` beside the guest's own.  Raises `Unsendable`."""
    exports = _encode("".join(f"export {_variable(name)}={quote(value)}\n" for name, value in env.items()))
    text = _encode(script)
    header = _message("step", index=str(index), env_size=str(len(exports)), script_size=str(len(text)))
    return header + exports + text


def cancel() -> bytes:
    """Send TERM to what runs, step or checkout, and to all that it started in its process group."""
    return _message("cancel")


def bye() -> bytes:
    """Ask for the barrier: `Bye` comes back when everything else has."""
    return _message("bye")


def _message(verb: str, **fields: str) -> bytes:
    for name, value in fields.items():
        if "\n" in value:
            raise Unsendable("cannot send a field to the guest", f"{name} has more than one line: {value[:40]!r}")
    return _encode("".join(f"{name}={quote(value)}\n" for name, value in [*fields.items(), ("verb", verb)]))


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise Unsendable("cannot set a variable in the guest", f"no shell has variables of this name: {name[:40]!r}")
    return name


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Unsendable("cannot send text to the guest", str(error)) from None

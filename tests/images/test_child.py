"""The real child, started as the supervisor starts it, over a socket pair."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TypeVar

import pytest

from solstice.errors import Cause
from solstice.host import processes
from solstice.host.channel import Channel
from solstice.images import messages, usage
from solstice.images.child import FIRST_RETRY, LINGER, LONGEST_RETRY, backoff
from solstice.images.fetch import READ_TIMEOUT
from solstice.images.messages import (
    Candidate,
    Configure,
    Failed,
    Idle,
    NotRefreshed,
    Order,
    Progress,
    Ready,
    Report,
    Retry,
    Wanted,
)
from solstice.model import Image
from tests.images.conftest import Server, begin

R = TypeVar("R")

PATIENCE = 20.0
MIB = 1 << 20
DISK = b"\xeb" * MIB + bytes(MIB)
NEWER = b"\xec" * MIB + bytes(MIB)


class Running:
    """A child and our end of its stream."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = processes.spawn("solstice.images", theirs)
        self.channel = Channel(ours)

    def say(self, order: Order) -> None:
        self.channel.send(messages.encode(order))

    def hear(self) -> Report:
        message = self.channel.receive(time.monotonic() + PATIENCE)
        assert message is not None, "the child said nothing"
        return messages.report(message)

    def hear_next(self, kind: type[R]) -> R:
        """The next report of this kind; others are passed over."""
        while not isinstance(report := self.hear(), kind):
            pass
        return report

    @property
    def title(self) -> str:
        return Path(f"/proc/{self.process.pid}/cmdline").read_bytes().rstrip(b"\0").decode()


@pytest.fixture
def start() -> Iterator[Callable[[], Running]]:
    with ExitStack() as stack:

        def start_one() -> Running:
            child = Running()
            stack.callback(child.process.wait, PATIENCE)
            stack.callback(child.process.kill)
            stack.callback(child.channel.close)
            return child

        yield start_one


@pytest.fixture
def child(start: Callable[[], Running]) -> Running:
    return start()


def image(name: str, source: str, directory: Path) -> Image:
    return Image(name, source, directory / f"{name}.img")


def test_images_are_made_ready_in_the_order_of_urgency(child: Running, server: Server, tmp_path: Path) -> None:
    (tmp_path / "second.img").write_bytes(DISK)
    images = (image("first", server.serve("/first", DISK), tmp_path), image("second", "/nowhere", tmp_path))
    child.say(Configure(images))
    assert [child.hear_next(Ready).image for _ in images] == ["first", "second"]
    assert isinstance(child.hear(), Idle)
    assert child.title == "solstice: images [idle]"
    assert (tmp_path / "first.img").read_bytes() == DISK


def test_a_child_with_nothing_to_do_says_so(child: Running) -> None:
    child.say(Configure(()))
    assert isinstance(child.hear(), Idle)


def test_a_failed_image_holds_up_no_other_and_backs_off(child: Running, server: Server, tmp_path: Path) -> None:
    child.say(
        Configure((image("bad", server.url + "/none", tmp_path), image("good", server.serve("/g", DISK), tmp_path)))
    )
    failed = child.hear_next(Failed)
    assert (failed.image, failed.cause, failed.retry_in) == ("bad", Cause.IMAGE, FIRST_RETRY)
    assert "404" in failed.why
    assert failed.remedy
    assert child.hear_next(Ready).image == "good"
    child.hear_next(Idle)
    child.say(Retry("bad"))
    assert child.hear_next(Failed).retry_in == 2 * FIRST_RETRY
    server.serve("/none", DISK)
    child.say(Retry("bad"))
    assert child.hear_next(Ready).image == "bad"
    shutil.rmtree(tmp_path / "versions" / "bad")
    del server.routes["/none"]
    child.say(Retry("bad"))
    assert child.hear_next(Failed).retry_in == FIRST_RETRY


def test_a_retry_in_the_middle_of_a_try_that_fails_is_not_lost(child: Running, server: Server, tmp_path: Path) -> None:
    cut = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, {"Content-Length": str(len(DISK))})
        request.wfile.write(DISK[:MIB])
        cut.wait(PATIENCE)
        server.route("/tiny", gone)

    def gone(request: BaseHTTPRequestHandler) -> None:
        server.serve("/tiny", DISK)
        request.send_error(404)

    child.say(Configure((image("tiny", server.route("/tiny", answer), tmp_path),)))
    child.hear_next(Progress)
    child.say(Retry("tiny"))
    cut.set()
    assert "404" in child.hear_next(Failed).why
    began = time.monotonic()
    child.hear_next(Ready)
    assert time.monotonic() - began < FIRST_RETRY / 2


def test_a_retry_of_an_unknown_image_is_harmless(child: Running) -> None:
    child.say(Configure(()))
    child.hear_next(Idle)
    child.say(Retry("gone"))
    child.hear_next(Idle)


def test_back_off_doubles_up_to_an_hour() -> None:
    assert [backoff(count) for count in (1, 2, 3, 9, 10, 10_000)] == [
        10.0,
        20.0,
        40.0,
        2560.0,
        LONGEST_RETRY,
        LONGEST_RETRY,
    ]


def test_progress_is_reported_and_shown_at_most_once_a_second(child: Running, server: Server, tmp_path: Path) -> None:
    released = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, {"Content-Length": str(len(DISK))})
        # Many small pieces in 1.2 s, then the rest: a report per piece would be a flood.
        for start in range(0, MIB, MIB // 60):
            request.wfile.write(DISK[start : start + MIB // 60][: MIB - start])
            released.wait(0.02)
        released.wait(PATIENCE)
        request.wfile.write(DISK[MIB:])

    child.say(Configure((image("tiny", server.route("/tiny", answer), tmp_path),)))
    first, second = child.hear(), child.hear()
    assert isinstance(first, Progress)
    assert isinstance(second, Progress)
    assert first.image == "tiny"
    assert first.bytes < second.bytes
    assert second.percent == second.bytes * 100 // len(DISK) > 20
    assert child.title == f"solstice: images [tiny {second.percent}%]"
    released.set()
    rest: list[Report] = []
    while not isinstance(report := child.hear(), Ready):
        rest.append(report)
    assert len(rest) <= 1


def test_the_child_ends_with_its_stream_even_while_a_server_does_not_answer(
    child: Running, server: Server, tmp_path: Path
) -> None:
    asked = threading.Event()

    def answer(_: BaseHTTPRequestHandler) -> None:
        asked.set()
        server.released.wait()

    child.say(Configure((image("tiny", server.route("/tiny", answer), tmp_path),)))
    assert asked.wait(PATIENCE)
    began = time.monotonic()
    child.channel.close()
    assert child.process.wait(PATIENCE) == 0
    assert time.monotonic() - began < LINGER + 5.0 < READ_TIMEOUT
    assert not (tmp_path / "tiny.img").exists()


def test_the_child_ends_with_its_stream_in_the_middle_of_a_download_and_leaves_no_file(
    child: Running, server: Server, tmp_path: Path
) -> None:
    ended = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, {"Content-Length": str(1 << 37)})
        try:
            while True:
                request.wfile.write(DISK[: 64 << 10])
                ended.wait(0.005)  # a slow line: the disk of the test must not fill
        finally:
            ended.set()

    child.say(Configure((image("tiny", server.route("/tiny", answer), tmp_path),)))
    child.hear_next(Progress)
    child.channel.close()
    assert child.process.wait(PATIENCE) == 0
    assert ended.wait(PATIENCE)
    assert not os.path.lexists(tmp_path / "tiny.img")
    assert not (tmp_path / "versions" / "tiny" / ".stage").exists()


def test_the_child_ends_with_its_stream_before_it_heard_anything(child: Running) -> None:
    child.channel.close()
    assert child.process.wait(PATIENCE) == 0


def test_a_killed_child_leaves_what_the_next_one_takes_over(
    start: Callable[[], Running], server: Server, tmp_path: Path
) -> None:
    child = start()
    child.say(Configure((image("tiny", server.stall("/tiny", DISK[:MIB], len(DISK)), tmp_path),)))
    child.hear_next(Progress)
    child.process.kill()
    child.process.wait(PATIENCE)
    assert not os.path.lexists(tmp_path / "tiny.img")
    server.serve("/tiny", DISK)
    after = start()
    after.say(Configure((image("tiny", server.url + "/tiny", tmp_path),)))
    ready = after.hear_next(Ready)
    assert ready.path.read_bytes() == DISK
    assert (tmp_path / "tiny.img").resolve() == ready.path
    after.hear_next(Idle)
    assert {path.name for path in ready.path.parent.iterdir()} == {
        ".change",
        ".lock",
        ready.path.name,
        f"{ready.path.name}.json",
    }


def test_signals_of_the_terminal_do_not_end_it(child: Running) -> None:
    child.say(Configure(()))
    child.hear_next(Idle)
    for number in (signal.SIGINT, signal.SIGHUP):
        child.process.send_signal(number)
    child.say(Configure(()))
    child.hear_next(Idle)
    with pytest.raises(subprocess.TimeoutExpired):
        child.process.wait(0)
    assert os.getsid(child.process.pid) == child.process.pid


def test_an_image_that_a_job_waits_for_goes_before_one_that_is_being_pulled(
    child: Running, server: Server, tmp_path: Path
) -> None:
    released = threading.Event()

    def slow(request: BaseHTTPRequestHandler) -> None:
        begin(request, {"Content-Length": str(len(DISK))})
        for start in range(0, len(DISK), len(DISK) // 64):
            request.wfile.write(DISK[start : start + len(DISK) // 64])
            released.wait(0.1)

    large = image("large", server.route("/large", slow), tmp_path)
    child.say(Configure((large, image("late", server.serve("/late", DISK), tmp_path))))
    assert child.hear_next(Progress).image == "large"
    child.say(Wanted("late"))
    assert child.hear_next(Ready).image == "late"
    released.set()
    assert child.hear_next(Ready).image == "large"


def test_a_job_that_waits_cuts_the_back_off_to_the_shortest(child: Running, server: Server, tmp_path: Path) -> None:
    child.say(Configure((image("bad", server.url + "/none", tmp_path),)))
    child.hear_next(Failed)
    for _ in range(3):
        child.say(Retry("bad"))
        child.hear_next(Failed)
    server.serve("/none", DISK)
    began = time.monotonic()
    child.say(Wanted("bad"))
    child.hear_next(Ready)
    assert FIRST_RETRY - 1.0 < time.monotonic() - began < 2 * FIRST_RETRY


def test_a_source_is_asked_again_when_that_is_due(child: Running, server: Server, tmp_path: Path) -> None:
    fresh = replace(image("tiny", server.serve("/tiny", DISK), tmp_path), refresh=1.0)
    child.say(Configure((fresh,)))
    first = child.hear_next(Ready)
    server.serve("/tiny", NEWER)
    while (ready := child.hear_next(Ready)) == first:
        pass
    assert ready.path.read_bytes() == NEWER
    assert ready.digest != first.digest


def test_a_refresh_that_fails_leaves_the_image_ready(child: Running, server: Server, tmp_path: Path) -> None:
    fresh = replace(image("tiny", server.serve("/tiny", DISK), tmp_path), refresh=0.2)
    child.say(Configure((fresh,)))
    child.hear_next(Ready)
    del server.routes["/tiny"]
    said = child.hear_next(NotRefreshed)
    assert "404" in said.why
    assert said.retry_in == FIRST_RETRY


def test_a_new_version_waits_for_the_verdict_of_its_boot_test(child: Running, server: Server, tmp_path: Path) -> None:
    tested = replace(image("tiny", server.serve("/tiny", DISK), tmp_path), boot_test=True)
    child.say(Configure((tested,)))
    first = child.hear_next(Candidate)
    assert not os.path.lexists(tmp_path / "tiny.img")
    child.say(messages.Tested("tiny", tmp_path / "another", True))
    child.say(messages.Tested("tiny", first.path, True))
    assert child.hear_next(Ready).path == first.path
    assert (tmp_path / "tiny.img").resolve() == first.path


def test_a_version_that_does_not_boot_puts_its_image_out_of_service(
    child: Running, server: Server, tmp_path: Path
) -> None:
    tested = replace(image("tiny", server.serve("/tiny", DISK), tmp_path), boot_test=True)
    child.say(Configure((tested,)))
    child.say(messages.Tested("tiny", child.hear_next(Candidate).path, False, "its runner said nothing"))
    failed = child.hear_next(Failed)
    assert "its runner said nothing" in failed.why
    assert not os.path.lexists(tmp_path / "tiny.img")


def test_what_was_said_to_be_ready_is_kept_from_being_pruned(child: Running, server: Server, tmp_path: Path) -> None:
    child.say(Configure((image("tiny", server.serve("/tiny", DISK), tmp_path),)))
    ready = child.hear_next(Ready)
    with usage.unused(ready.path) as is_unused:
        assert not is_unused
    child.hear_next(Idle)
    child.say(Configure(()))
    child.hear_next(Idle)
    with usage.unused(ready.path) as is_unused:
        assert is_unused


def test_a_map_that_changes_during_a_pull_ends_it_and_the_new_one_counts(
    child: Running, server: Server, tmp_path: Path
) -> None:
    slow = Image("one", server.stall("/slow.img", DISK[:1000], len(DISK)), tmp_path / "one.img")
    child.say(Configure((slow,)))
    child.hear_next(Progress)
    (tmp_path / "good.img").write_bytes(NEWER)
    child.say(Configure((replace(slow, source=str(tmp_path / "good.img")),)))
    assert child.hear_next(Ready).path.read_bytes() == NEWER


def test_a_look_that_fails_leaves_a_label_ready_whatever_led_to_it(
    child: Running, server: Server, tmp_path: Path
) -> None:
    source = tmp_path / "source.img"
    source.write_bytes(DISK)
    one = Image("one", str(source), tmp_path / "one.img", refresh=3600.0)
    child.say(Configure((one,)))
    path = child.hear_next(Ready).path
    lock = (path.parent / ".lock").open()
    fcntl.flock(lock, fcntl.LOCK_EX)
    source.unlink()
    child.say(Retry("one"))
    report = child.hear()
    while not isinstance(report, Ready | NotRefreshed | Failed):
        report = child.hear()
    assert not isinstance(report, Failed)
    lock.close()

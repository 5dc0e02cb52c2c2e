"""The host's side of a guest: a real session between a worker and a scripted guest."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from solstice.model import JobRequest, Step
from solstice.protocol.session import CHECKOUT, Cancel, Event, Told, encode
from tests.runner.sessions import Guest, Served, record

JOB = JobRequest(
    "6f9b2c4e-1d3a-4b5c-8e7f-a0b1c2d3e4f5", "tiny", (Step("first", "echo one"), Step("second", "echo two"))
)
# more than a pipe holds, less than a socket does
MUCH = b"x" * 100_000


@pytest.fixture
def served(reachable: Path) -> Iterator[Served]:
    with closing(Served(reachable)) as session:
        yield session


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Closes the guest's connections at the end of the test."""
    with ExitStack() as stack:
        yield stack


def guest_of(served: Served, held: ExitStack) -> Guest:
    return held.enter_context(closing(Guest(served.connect("port"))))


def greeted(served: Served, held: ExitStack, request: JobRequest = JOB, **environment: str) -> Guest:
    """A guest whose hello has been answered."""
    served.begin(request, environment)
    guest = guest_of(served, held)
    guest.greet()
    assert served.told() == Told(Event.HELLO)
    return guest


def end_step(guest: Guest, index: int, exit_code: int) -> None:
    guest.record(type="step_end", index=index, exit_code=exit_code)


def test_a_job_goes_from_hello_through_its_steps_to_its_end(served: Served, held: ExitStack) -> None:
    guest = greeted(served, held)
    for index, step in enumerate(JOB.steps):
        said = guest.heard()
        assert (said.verb, said.fields["index"], said.script) == ("step", str(index), step.run)
        assert served.told() == Told(Event.STEP_STARTED, index)
        guest.print(f"output of {step.name}\n".encode())
        end_step(guest, index, 0)
        assert served.told() == Told(Event.STEP_ENDED, index, 0)
    assert guest.heard().verb == "bye"
    guest.record(type="bye")
    assert served.told() == Told(Event.FINISHED)
    assert served.end() == ([], b"==> first\noutput of first\n==> second\noutput of second\n")


def test_what_the_guest_says_of_its_clock_is_told_once_for_each_step(served: Served, held: ExitStack) -> None:
    served.begin(JOB)
    guest = guest_of(served, held)
    guest.greet(at=1000)
    assert served.told() == Told(Event.HELLO, guest_at=1000)
    assert served.told() == Told(Event.STEP_STARTED, 0)
    for index, at in [(1, 1001), (0, 1002), (0, 1003)]:
        guest.record(type="step_start", index=index, at=at)
    guest.record(type="step_end", index=0, exit_code=0, at=999)
    assert served.told() == Told(Event.STEP_BEGAN, 0, guest_at=1002)
    assert served.told() == Told(Event.STEP_ENDED, 0, 0, 999)
    assert served.told() == Told(Event.STEP_STARTED, 1)
    guest.record(type="step_start", index=1, at="now")
    assert served.told() == Told(Event.STEP_BEGAN, 1)


def test_after_a_step_that_fails_the_rest_is_skipped(served: Served, held: ExitStack) -> None:
    guest = greeted(served, held)
    assert guest.heard().verb == "step"
    guest.print(b"no line end")
    end_step(guest, 0, 3)
    assert guest.heard().verb == "bye"
    assert served.told() == Told(Event.STEP_STARTED, 0)
    assert served.told() == Told(Event.STEP_ENDED, 0, 3)
    assert served.end() == ([], b"==> first\nno line end\n==> first: exit status 3\n")


def test_a_checkout_comes_before_the_steps_and_its_failure_skips_them(served: Served, held: ExitStack) -> None:
    request = JobRequest(JOB.request_id, "tiny", JOB.steps, repo_url="https://host/a.git", commit_sha="a" * 40, ref="r")
    guest = greeted(served, held, request)
    said = guest.heard()
    assert said.verb == "checkout"
    assert [said.fields[name] for name in ("url", "sha", "ref")] == ["https://host/a.git", "a" * 40, "r"]
    end_step(guest, CHECKOUT, 128)
    assert guest.heard().verb == "bye"
    assert served.told() == Told(Event.STEP_STARTED, CHECKOUT)
    assert served.told() == Told(Event.STEP_ENDED, CHECKOUT, 128)
    assert served.end() == ([], b"==> checkout\n==> checkout: exit status 128\n")


def test_a_steps_own_environment_wins_over_the_jobs_and_that_over_the_workers(served: Served, held: ExitStack) -> None:
    steps = (Step("only", "true", {"C": "step"}),)
    request = JobRequest(JOB.request_id, "tiny", steps, env={"B": "job", "C": "job"})
    guest = greeted(served, held, request, A="worker", B="worker", C="worker")
    assert guest.heard().exports == "export A='worker'\nexport B='job'\nexport C='step'\n"


def test_a_cancelled_job_ends_its_step_and_starts_no_other(served: Served, held: ExitStack) -> None:
    guest = greeted(served, held)
    assert guest.heard().verb == "step"
    served.channel.send(encode(Cancel()))
    assert guest.heard().verb == "cancel"
    end_step(guest, 0, 0)
    assert guest.heard().verb == "bye"


def test_a_second_start_of_the_runner_is_told(served: Served, held: ExitStack) -> None:
    guest = greeted(served, held)
    guest.print(record(guest.guard, type="rebooted"))
    assert served.told() == Told(Event.STEP_STARTED, 0)
    assert served.told() == Told(Event.REBOOTED)


def test_a_script_larger_than_a_sockets_buffer_arrives_whole(served: Served, held: ExitStack) -> None:
    script = "# a line of a long script\n" * 40_000
    guest = greeted(served, held, JobRequest(JOB.request_id, "tiny", (Step("long", script),)))
    # told while the guest reads nothing: the session does not wait for it
    assert served.told() == Told(Event.STEP_STARTED, 0)
    assert guest.heard().script == script


def test_a_guest_that_is_only_watched_is_heard_and_told_nothing(served: Served, held: ExitStack) -> None:
    served.begin()
    port = held.enter_context(served.connect("port"))
    port.sendall(record("", type="hello", protocol=1, system="Linux 6.1 x86_64"))
    assert served.told() == Told(Event.HELLO)
    assert served.end() == ([], b"")
    assert port.recv(1) == b""


@pytest.mark.parametrize("name", ["port", "console"])
def test_a_connection_of_another_user_is_refused_and_its_bytes_reach_no_log(
    served: Served, held: ExitStack, name: str
) -> None:
    served.begin(JOB, peer=os.getuid() + 1)
    stranger = held.enter_context(served.connect(name))
    assert refused(stranger, record("", type="hello", protocol=1, system="") + b"Linux version 6.1 poison\n")
    assert served.end() == ([], f"==> refused a connection of user {os.getuid()}: not the hypervisor\n".encode())
    assert served.read_console_log() == b""


def refused(stranger: socket.socket, data: bytes) -> bool:
    """True if the peer closes; whether before, while or after it is sent something."""
    try:
        stranger.sendall(data)
        return stranger.recv(1) == b""
    except (BrokenPipeError, ConnectionResetError):
        return True


@pytest.mark.parametrize(
    "words", [b"Linux version 6.1.0-13", b"[    0.000000] Command", b"SunOS Release 5.11", b"FreeBSD 14.0"]
)
def test_a_kernels_first_words_are_told_once(served: Served, held: ExitStack, words: bytes) -> None:
    served.begin()
    console = held.enter_context(served.connect("console"))
    for _ in range(2):
        console.sendall(b"BdsDxe: starting Boot0001\r\n" + words + b"\r\n")
        assert words in served.read_console_log()
    console.close()
    assert [served.told().event, served.told().event] == [Event.KERNEL, Event.GONE]


@pytest.mark.parametrize("cut", [1, 6, 13])
def test_a_kernels_words_are_known_over_two_writes(served: Served, held: ExitStack, cut: int) -> None:
    words = b"Linux version 6.1.0-13"
    served.begin()
    console = held.enter_context(served.connect("console"))
    console.sendall(b"GRUB\n" + words[:cut])
    assert served.read_console_log() == b"GRUB\n" + words[:cut]
    console.sendall(words[cut:])
    assert served.told() == Told(Event.KERNEL)


@pytest.mark.parametrize("words", [b"SeaBIOS (version 1.16.2)\r\n", b"Welcome to GRUB!\n", b"Loading Linux 6.1 ...\n"])
def test_firmware_and_boot_loader_are_no_kernel(served: Served, held: ExitStack, words: bytes) -> None:
    served.begin()
    with served.connect("console") as console:
        console.sendall(words)
    assert served.told() == Told(Event.GONE)
    assert served.read_console_log() == words


def test_a_vm_is_gone_only_when_its_ports_last_bytes_are_in_the_log(served: Served, held: ExitStack) -> None:
    served.begin()
    console = held.enter_context(served.connect("console"))
    console.sendall(b"boots")
    # so the console is looked at before the port
    assert served.read_console_log() == b"boots"
    guest = guest_of(served, held)
    guest.record(type="hello", protocol=1, system="Linux 6.1 x86_64")
    assert served.told() == Told(Event.HELLO)
    served.pause()
    guest.print(MUCH)
    guest.close()
    console.close()
    served.resume()
    log = served.read_log()
    # the session waits for us to read on, so that what it has told by now, it has told before the log was complete
    assert not served.channel.wait(0.0)
    while len(log) < len(MUCH):
        log += served.read_log()
    assert log == MUCH
    assert served.told() == Told(Event.GONE)


def test_a_log_keeps_what_its_limit_allows_and_says_how_much_is_missing(reachable: Path, held: ExitStack) -> None:
    served = held.enter_context(closing(Served(reachable, limit=10)))
    guest = greeted(served, held)
    guest.print(b"0123456")
    guest.print(b"789" + MUCH)
    end_step(guest, 0, 1)
    assert guest.heard().verb == "step"
    assert guest.heard().verb == "bye"
    expected = b"==> first\n0123456789\n==> first: exit status 1\n==> %d bytes more were printed and not kept\n"
    assert served.end()[1] == expected % len(MUCH)


def test_a_record_that_was_torn_by_the_end_is_in_the_log(served: Served, held: ExitStack) -> None:
    served.begin()
    port = held.enter_context(served.connect("port"))
    torn = b'\x1e{"type": "hel'
    port.sendall(b"before" + torn)
    # until its end it may still become a record
    assert served.read_log() == b"before"
    assert served.end() == ([], torn)


def test_the_end_of_a_step_that_does_not_run_and_a_bye_that_is_not_due_are_not_believed(
    served: Served, held: ExitStack
) -> None:
    guest = greeted(served, held)
    end_step(guest, 1, 0)
    guest.record(type="bye")
    end_step(guest, 0, 0)
    end_step(guest, 0, 0)
    guest.print(b"end\n")
    log = b""
    while not log.endswith(b"end\n"):
        log += served.read_log()
    assert served.end() == ([Event.STEP_STARTED, Event.STEP_ENDED, Event.STEP_STARTED], b"")

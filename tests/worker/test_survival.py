"""Real workers whose supervisor goes away, comes back, hangs, or is another one: the job goes on, nothing is lost."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import psutil
import pytest

from solstice.errors import Cause
from solstice.lifecycle import JobState
from solstice.model import Outcome
from solstice.protocol import attach, order, reports
from solstice.protocol.lines import Message
from tests.worker.forked import FOR_EVER, OWNER, PATIENCE, WHOLE, Forks, hear, leftovers, noop_order, rest, words

CANCELLED = Outcome(JobState.CANCELLED, Cause.CANCELLED, "not wanted any more")
STOP = order.encode_stop(order.Stop(CANCELLED))


def outcome(messages: list[Message]) -> Outcome:
    [ended] = [report for message in messages if isinstance(report := reports.decode(message)[0], reports.Ended)]
    return ended.outcome


def test_what_is_said_is_what_the_journal_has(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable))
    said = rest(worker.pipe)
    assert words(said) == WHOLE
    assert said == worker.said()
    assert [message["n"] for message in said] == list(range(len(WHOLE)))
    assert forks.status(worker) == 0


def test_the_first_line_tells_who_the_worker_is(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    identity, _at = reports.decode(hear(worker.pipe, "identity")[0])
    assert isinstance(identity, reports.Identity)
    assert (identity.host, identity.pid) == (OWNER, worker.pid)
    assert (identity.job, identity.attempt) == (worker.what.vm.id.job, 1)
    # the kernel's own time of boot wavers by a second
    assert identity.started == pytest.approx(psutil.Process(worker.pid).create_time(), abs=1.5)
    worker.pipe.send(STOP)
    rest(worker.pipe)


def test_a_worker_whose_pipe_closes_and_whose_fork_server_ends_finishes_its_job(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, "0.5"))
    hear(worker.pipe, "running")
    worker.pipe.close()
    forks.close()
    worker.wait()
    assert words(worker.said()) == WHOLE
    assert outcome(worker.said()).state is JobState.SUCCEEDED
    assert leftovers(worker.what) == []
    assert not worker.socket.exists()


def test_who_attaches_hears_what_it_has_not_and_what_comes(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    worker.pipe.close()
    channel = worker.attach(after=1)
    said = hear(channel, "running")
    assert words(said) == ["booting", "running"]
    channel.send(STOP)
    said += rest(channel)
    assert said == worker.said(after=1)
    assert words(said) == ["booting", "running", "outcome", "cleaning", "done"]
    assert outcome(said) == CANCELLED
    assert leftovers(worker.what) == []
    channel.close()


def test_who_has_all_hears_only_what_comes(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    last = hear(worker.pipe, "running")[-1]["n"]
    channel = worker.attach(after=last)
    channel.send(STOP)
    assert words(rest(channel)) == ["outcome", "cleaning", "done"]
    channel.close()


def test_the_newest_supervisor_is_the_only_one(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    first = worker.attach()
    assert words(hear(first, "running")) == WHOLE[:4]
    assert rest(worker.pipe) == []
    second = worker.attach(after=2)
    assert words(hear(second, "running")) == ["running"]
    assert rest(first) == []
    second.send(STOP)
    assert words(rest(second)) == ["outcome", "cleaning", "done"]
    first.close()
    second.close()


def test_who_connects_and_does_not_attach_takes_nobodys_place(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    idle = worker.connect()
    worker.pipe.send(STOP)
    assert words(rest(worker.pipe)) == ["outcome", "cleaning", "done"]
    assert rest(idle) == []
    idle.close()


def test_a_worker_that_was_stopped_answers_when_it_goes_on(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    os.kill(worker.pid, signal.SIGSTOP)
    channel = worker.attach()
    assert not channel.wait(time.monotonic() + 0.2)
    os.kill(worker.pid, signal.SIGCONT)
    assert words(hear(channel, "running")) == WHOLE[:4]
    channel.send(STOP)
    assert words(rest(channel)) == ["outcome", "cleaning", "done"]
    channel.close()


def test_a_supervisor_that_never_reads_keeps_no_worker_from_its_end(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    # the outcome comes back in one line, which is more than a socket takes
    huge = Outcome(JobState.CANCELLED, Cause.CANCELLED, "x" * (2 << 20))
    worker.pipe.send(order.encode_stop(order.Stop(huge)))
    worker.wait()
    assert forks.status(worker) == 0
    assert outcome(worker.said()) == huge
    assert words(worker.said()) == WHOLE


def test_a_stop_right_behind_the_order_is_heard(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER), STOP)
    assert outcome(rest(worker.pipe)) == CANCELLED


@pytest.mark.parametrize(
    "line",
    [
        {"v": attach.VERSION + 1, "type": "attach", "after": 0},
        {"v": attach.VERSION, "type": "attach", "after": "0"},
        {"v": attach.VERSION, "type": "attach", "after": -2},
        STOP,
    ],
)
def test_who_says_anything_but_an_attach_first_is_let_go_and_costs_nothing(
    forks: Forks, reachable: Path, line: Message
) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    stranger = worker.connect()
    stranger.send(line)
    assert rest(stranger) == []
    stranger.close()
    worker.pipe.send(STOP)
    assert words(rest(worker.pipe)) == ["outcome", "cleaning", "done"]


def test_a_message_that_only_a_later_supervisor_knows_is_let_pass(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    channel = worker.attach(after=3)
    channel.send({"v": 1, "type": "encourage", "words": []})
    channel.send({**STOP, "reason": "a field of a later version"})
    assert outcome(rest(channel)) == CANCELLED
    channel.close()


def test_journal_and_socket_are_for_their_user_alone(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (worker.journal, worker.socket)] == [0o600, 0o600]
    worker.pipe.send(STOP)
    rest(worker.pipe)


def test_an_attempt_has_one_worker_and_a_second_one_says_so_even_when_nobody_keeps_its_log(reachable: Path) -> None:
    reader, log = os.pipe()
    forks = Forks(log)
    os.close(log)
    os.close(reader)
    what = noop_order(reachable, FOR_EVER)
    first = forks.run(what)
    hear(first.pipe, "running")
    second = forks.run(what)
    [said] = rest(second.pipe)
    failed, _at = reports.decode(said)
    assert isinstance(failed, reports.Failed)
    assert failed.why == f"File exists: {first.journal}"
    assert forks.status(second) == 0
    channel = first.attach()
    assert words(hear(channel, "running")) == WHOLE[:4]
    channel.send(STOP)
    assert words(rest(channel)) == ["outcome", "cleaning", "done"]
    channel.close()
    forks.forget()


def test_a_worker_that_was_killed_leaves_a_socket_that_refuses(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable, FOR_EVER))
    hear(worker.pipe, "running")
    [session] = psutil.Process(worker.pid).children()
    os.kill(worker.pid, signal.SIGKILL)
    assert forks.status(worker) == -signal.SIGKILL
    assert rest(worker.pipe) == []
    with pytest.raises(ConnectionRefusedError):
        worker.connect()
    assert words(worker.said()) == WHOLE[:4]
    psutil.wait_procs([session], timeout=PATIENCE)
    assert not session.is_running()


def test_a_pipe_that_closes_at_once_costs_nothing(forks: Forks, reachable: Path) -> None:
    worker = forks.run(noop_order(reachable))
    worker.pipe.close()
    worker.wait()
    assert words(worker.said()) == WHOLE
    with pytest.raises(FileNotFoundError):
        worker.connect()

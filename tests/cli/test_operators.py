"""The operator's commands against a control socket whose answers are written by hand: both forms, and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from solstice.cli import jobs as jobs_command
from solstice.cli import pause as pause_command
from solstice.cli import show as show_command
from solstice.cli import status as status_command
from solstice.cli import why as why_command
from solstice.errors import UsageError
from tests.cli.supervisors import DIGEST, FAILED, JOB, NOON, OTHER, STATUS, WAITS, Supervisor, solstice

Answering = Callable[..., Supervisor]

COMMANDS = [
    (["status"], "status", {}, STATUS),
    (["jobs"], "jobs", {"limit": 20, "state": None}, []),
    (["jobs", "-n", "3", "--state", "failed"], "jobs", {"limit": 3, "state": "failed"}, [FAILED["job"]]),
    (["show", "7f3a"], "job", {"job": "7f3a"}, FAILED),
    (["why", "7f3a"], "why", {"job": "7f3a"}, WAITS),
    (["cancel", "7f3a"], "cancel", {"job": "7f3a"}, {"job": JOB, "state": "running"}),
    (["pause", "tiny"], "pause", {"label": "tiny"}, {"paused": ["tiny"], "host": False}),
    (["pause"], "pause", {"label": None}, {"paused": [], "host": True}),
    (["resume", "tiny"], "resume", {"label": "tiny"}, {"paused": [], "host": False}),
    (["resume"], "resume", {"label": None}, {"paused": ["tiny"], "host": False}),
    (["drain"], "drain", {"wait": False}, {"active": 2, "pending": 1}),
    (["drain", "--wait"], "drain", {"wait": True}, {"active": 0, "pending": 1}),
]


@pytest.mark.parametrize(("words", "command", "fields", "answer"), COMMANDS, ids=lambda value: str(value)[:24])
def test_json_is_the_answer_and_nothing_else(
    answering: Answering, words: list[str], command: str, fields: dict[str, Any], answer: Any
) -> None:
    supervisor = answering(**{command: lambda _asked: answer})
    done = solstice(supervisor.run_dir, *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == answer
    assert supervisor.asked == [{"v": 1, "cmd": command, **fields}]


@pytest.mark.parametrize(
    "words", [["show", "ffff"], ["why", "ffff"], ["cancel", "ffff"], ["pause", "amiga"], ["resume", "amiga"]]
)
def test_what_the_supervisor_refuses_ends_with_1_and_its_words(answering: Answering, words: list[str]) -> None:
    def refuse(_asked: Any) -> Any:
        raise UsageError("that", "it is not here", "see `solstice jobs`")

    supervisor = answering(**dict.fromkeys(("job", "why", "cancel", "pause", "resume"), refuse))
    done = solstice(supervisor.run_dir, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it is not here (see `solstice jobs`)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [words for words, *_ in COMMANDS] + [["top"]], ids=" ".join)
def test_without_a_supervisor_each_ends_with_2_and_the_remedy(tmp_path: Path, words: list[str]) -> None:
    done = solstice(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "start `solstice serve`" in done.stderr


def test_a_pipe_gets_no_colour(answering: Answering) -> None:
    supervisor = answering(status=lambda _asked: STATUS)
    assert "\x1b" not in solstice(supervisor.run_dir, "status").stdout


def lines(text: str) -> list[str]:
    return click.unstyle(text).splitlines()


def test_status_shows_host_capacity_labels_and_jobs() -> None:
    assert lines(status_command.text(STATUS)) == [
        "metal-1: solstice 0.1.0, pid 42, state in /var/lib/solstice",
        "back end  libvirt (kvm)",
        "broker    up: connected to amqp://me@broker:5672/",
        "intake    taking jobs",
        "store     ok",
        "",
        "RESOURCE     TAKEN              OF        SETTING",
        "slots        1                  4         MAX_CONCURRENCY",
        "VMs booting  1                  2         MAX_BOOTING",
        "CPUs         2                  6.5       CPU_OVERCOMMIT",
        "memory       512 MiB            6.5 GiB   MEMORY_RESERVE",
        "disk         10.0 GiB promised  32.0 GiB  DISK_FLOOR: 34.0 GiB are free, 2.0 GiB of them kept",
        "pending      2                  100       PENDING_LIMIT",
        "",
        "IMAGE      ALIASES  TAKEN  OF  PENDING  STATE",
        "debian-12  debian   1      4   2        ready",
        "illumos             0      2   0        paused",
        "tiny                0      4   0        tiny is in quarantine, 3 attempts in a row failed by this host: none",
        "",
        "JOB       LABEL   ATTEMPT  PHASE    AGE         PID   ENDS BECAUSE",
        "7f3a91c2  debian  1        booting  3 min 12 s  4711",
        "",
        "PLACE  JOB       LABEL   PRIORITY  AGE    WAITS FOR",
        "1      19be04d7  debian  7         3.0 s  as many VMs boot as may, 1 (MAX_BOOTING)",
        "… and 1 more",
    ]


def test_status_of_an_idle_paused_host_without_a_broker_says_so() -> None:
    capacity = {**STATUS["capacity"], "pending": {"used": 0, "limit": 100}}
    changed = {"paused": True, "broker": "down", "broker_why": "refused", "backend": "noop", "domain_type": None}
    text = lines(status_command.text({**STATUS, **changed, "capacity": capacity, "active": [], "pending": []}))
    assert text[1:4] == [
        "paused: no job starts (solstice resume)",
        "back end  noop (runs nothing)",
        "broker    down: refused",
    ]
    assert not [line for line in text if line.startswith(("JOB", "PLACE"))]


def test_jobs_are_one_line_each() -> None:
    pending = {**FAILED["job"], "id": OTHER, "state": "accepted", "cause": None, "exit_code": None, "detail": ""}
    assert lines(jobs_command.text([FAILED["job"], {**pending, "started_at": None, "ended_at": None}])) == [
        "JOB       LABEL   STATE     EXIT  CAUSE             ACCEPTED              SECONDS  DETAIL",
        "7f3a91c2  debian  failed    5     user.step_failed  2026-09-21T14:13:20Z  7.2      "
        "step 'make·[2J' ended with exit status 5",
        "19be04d7  debian  accepted                          2026-09-21T14:13:20Z",
    ]


def test_show_has_the_cause_with_its_remedy_and_every_attempt() -> None:
    assert lines(show_command.text(FAILED, now=NOON + 98)) == [
        f"job        {JOB}",
        "state      failed, exit status 5",
        "cause      user.step_failed: a step of the job failed",
        "remedy     read the step's output with `solstice logs JOB`",
        "detail     step 'make·[2J' ended with exit status 5",
        "label      debian (image debian-12)",
        "repository https://forge/me/it.git",
        f"commit     {'1' * 40}",
        "group      deploy",
        "priority   7",
        "accepted   2026-09-21T14:13:20Z",
        "started    2026-09-21T14:14:50Z, after 1 min 30 s",
        "ended      2026-09-21T14:14:57Z, after 7.2 s",
        "",
        "attempt 1  on metal-1 (libvirt), does not count: "
        "put back, infra.host_stopping: the supervisor was asked to stop",
        "  phases   preparing 0.5 s, cleaning 1.0 s",
        f"  log      /var/lib/solstice/jobs/{JOB}/1/log",
        "",
        "attempt 2  on metal-1 (libvirt): failed",
        "  phases   preparing 0.3 s, booting 4.7 s, running 2.2 s, cleaning 0.8 s",
        f"  image    {DIGEST}",
        f"  log      /var/lib/solstice/jobs/{JOB}/2/log",
        "  STEP      EXIT  TOOK",
        "  checkout  0     0.4 s",
        "  make      5     1.8 s",
    ]


def test_show_of_a_job_that_runs_or_never_ran_says_for_how_long() -> None:
    job = {**FAILED["job"], "state": "running", "cause": None, "detail": "", "exit_code": None, "ended_at": None}
    assert "so far     10 s" in lines(show_command.text({**FAILED, "job": job}, now=NOON + 100))
    never = {**FAILED["job"], "state": "cancelled", "cause": "user.cancelled", "exit_code": None, "started_at": None}
    text = lines(show_command.text({**FAILED, "job": never, "attempts": []}, now=NOON + 100))
    assert "cause      user.cancelled: the job was cancelled" in text
    assert text[-1] == "ended      2026-09-21T14:14:57Z, after 1 min 37 s"


@pytest.mark.parametrize(
    ("changed", "first", "estimate"),
    [
        ({}, "capacity (slots): all slots of this host are taken, 2 (MAX_CONCURRENCY)", "it starts in about 40 s"),
        (
            {"resource": "booting", "why": "as many VMs boot as may, 4 (MAX_BOOTING)", "starts_in": None},
            "capacity (booting): as many VMs boot as may, 4 (MAX_BOOTING)",
            "no estimate yet",
        ),
        (
            {"resource": "other", "why": "tiny is paused (solstice resume tiny)", "starts_in": None},
            "something else than capacity: tiny is paused (solstice resume tiny)",
            "no estimate yet",
        ),
        (
            {"resource": None, "why": "its turn has come", "starts_in": 0.0},
            "nothing: its turn has come",
            "in about 0.0 s",
        ),
    ],
)
def test_why_has_resource_place_and_estimate(changed: dict[str, Any], first: str, estimate: str) -> None:
    text = lines(why_command.text({**WAITS, **changed}))
    assert text[:2] == [f"job 7f3a91c2 waits for {first}", "place     3"]
    assert text[2].endswith(estimate)


def test_why_of_a_job_that_does_not_wait_says_what_it_does() -> None:
    found = {**WAITS, "state": "failed", "why": "it has ended: x\x1b [user.step_failed]", "place": None}
    assert why_command.text(found) == "job 7f3a91c2 (failed): it has ended: x· [user.step_failed]"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"paused": ["debian", "tiny"], "host": True}, "paused now: this host, debian, tiny"),
        ({"paused": [], "host": False}, "paused now: nothing"),
    ],
)
def test_pause_and_resume_say_what_is_paused_now(found: dict[str, Any], text: str) -> None:
    assert pause_command.text(found) == text


@pytest.mark.parametrize(
    ("words", "answer", "text"),
    [
        (["cancel", JOB], {"job": JOB, "state": "running"}, "job 7f3a91c2 is being cancelled; it ran\n"),
        (["cancel", JOB], {"job": JOB, "state": "accepted"}, "job 7f3a91c2 is being cancelled; it waited\n"),
        (["drain"], {"active": 2, "pending": 1}, "draining: 2 running, 1 pending\n"),
        (["drain", "--wait"], {"active": 0, "pending": 0}, "drained: nothing is running\n"),
        (["drain", "--wait"], {"active": 0, "pending": 1}, "drained: nothing is running, 1 that are paused stay\n"),
    ],
)
def test_what_is_done_is_confirmed_in_a_line(answering: Answering, words: list[str], answer: Any, text: str) -> None:
    supervisor = answering(**{words[0]: lambda _asked: answer})
    assert solstice(supervisor.run_dir, *words).stdout == text

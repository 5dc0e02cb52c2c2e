"""The process: what it promises about the disk, and how it ends.  Real processes, a real SQLite file."""

from __future__ import annotations

import resource
import signal
import struct
import time
from pathlib import Path

import psutil
import pytest

from solstice.errors import UsageError
from solstice.host.channel import Closed
from solstice.protocol.lines import Message
from solstice.store.engine import opened
from solstice.store.group import answer
from tests.store.process import HOST, PATIENCE, Store, accept, finish, new_job, running_store, start


def commits_in(wal: Path) -> int:
    """How many transactions SQLite's write-ahead log holds: a frame that ends one has the file's size in its header."""
    data = wal.read_bytes()
    (page_size,) = struct.unpack_from(">8xI", data)
    salts = data[16:24]
    frames = range(32, len(data) - 23, 24 + page_size)
    return sum(struct.unpack_from(">4xI", data, at)[0] != 0 for at in frames if data[at + 8 : at + 16] == salts)


def test_messages_that_wait_together_become_one_transaction(tmp_path: Path) -> None:
    wal = tmp_path / "test.db-wal"
    with running_store(tmp_path / "test.db") as store:
        store.result("counts")
        before = commits_in(wal)
        for job in (new_job(), new_job()):
            store.result(**accept(job))
        assert commits_in(wal) == before + 2, "each awaited message is a transaction: the measure works"

        store.stop()
        ids = store.write([accept(new_job()) for _ in range(200)])
        store.go_on()
        replies = [store.read() for _ in ids]

        assert [reply["id"] for reply in replies] == ids
        assert all(reply["result"]["new"] for reply in replies)
        assert commits_in(wal) == before + 3


def test_refused_message_does_not_undo_its_neighbours(database_url: str) -> None:
    good, other = new_job(), new_job()
    with running_store(database_url) as store:
        store.stop()
        store.write([accept(good), start(other), {"op": "nonsense"}, start(good), accept(other), finish(other)])
        store.go_on()
        replies = [store.read() for _ in range(6)]
        assert [reply.get("kind", "ok") for reply in replies] == [
            "ok",
            "unknown_job",
            "bad_request",
            "ok",
            "ok",
            "illegal_move",
        ]
        assert store.result("job", job=good)["job"]["state"] == "running"
        assert store.result("job", job=other)["job"]["state"] == "accepted"


def test_what_was_answered_is_there_after_sigkill(database_url: str) -> None:
    answered: set[str] = set()
    for killed_after in (1, 17, 60, 140):
        jobs = [new_job() for _ in range(200)]
        with running_store(database_url) as store:
            names = dict(zip(store.write([accept(job) for job in jobs]), jobs, strict=True))
            for _ in range(killed_after):
                answered.add(names[store.read()["id"]])
            store.kill()
            # what it had answered before it died may still be on its way to us
            try:
                while True:
                    answered.add(names[store.read()["id"]])
            except Closed:
                pass
    with running_store(database_url) as store:
        there = {job["id"] for job in store.result("jobs", limit=10_000)["jobs"]}
        events = store.result("outbox", limit=10_000)["events"]
    assert answered <= there
    assert len(events) == len(there), "a job is there with its event, or not at all"


def test_end_of_stream_ends_the_process_after_what_it_was_asked(database_url: str) -> None:
    jobs = [new_job() for _ in range(50)]
    with running_store(database_url) as store:
        store.stop()
        store.write([accept(job) for job in jobs])
        store.go_on()
        assert store.close() == 0
    with running_store(database_url) as store:
        assert {job["id"] for job in store.result("jobs")["jobs"]} == set(jobs)


def test_a_new_store_waits_until_the_old_one_is_gone(database_url: str) -> None:
    with running_store(database_url) as old, running_store() as new:
        job = new_job()
        old.stop()
        old.write([accept(job), start(job)])
        (number,) = new.write([{"op": "configure", "url": database_url, "host": HOST}])
        assert not new.channel.wait(time.monotonic() + 0.5)
        old.go_on()
        assert [old.read()["ok"], old.read()["ok"]] == [True, True]
        assert old.close() == 0
        reply = new.read()
        assert (reply["id"], reply["ok"]) == (number, True)
        assert new.result("job", job=job)["job"]["state"] == "running"


def test_who_holds_the_database_is_named_when_it_does_not_go(database_url: str) -> None:
    with running_store(database_url) as store:
        with (
            pytest.raises(UsageError, match=rf"is in use.*with pid {store.process.pid}\b.* holds it"),
            opened(database_url, 0.0, HOST),
        ):
            pass
        store.kill()
        with opened(database_url, 5.0, HOST) as engine:
            assert answer(engine, [{"op": "counts", "id": 1}])[0]["ok"]


def test_end_of_stream_before_configure_ends_the_process() -> None:
    with running_store() as store:
        assert store.close() == 0


def test_terminal_signals_are_ignored_and_the_title_names_the_database(database_url: str) -> None:
    with running_store(database_url) as store:
        store.process.send_signal(signal.SIGINT)
        store.process.send_signal(signal.SIGHUP)
        assert store.result("counts")["counts"]["running"] == 0
        assert psutil.Process(store.process.pid).cmdline()[0] == f"solstice: store [{database_url.partition(':')[0]}]"


def test_database_file_is_for_its_owner_only(tmp_path: Path) -> None:
    with running_store(tmp_path / "test.db") as store:
        store.result("counts")
        assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_garbage_on_the_channel_ends_the_process_with_a_reason() -> None:
    with running_store() as store:
        store.sock.sendall(b"no json\n")
        assert store.process.wait(PATIENCE) == 70


def test_directory_that_takes_no_file_is_an_answer_and_configure_may_be_repeated(tmp_path: Path) -> None:
    with running_store() as store:
        # /proc takes no file from anyone: root, whom a mode would not stop, included
        reply = store.ask("configure", url="sqlite:////proc/test.db", host=HOST)
        assert reply["kind"] == "database"
        assert "the database /proc/test.db cannot be opened" in reply["error"]
        assert "check that the directory" in reply["error"]
        assert store.ask("counts")["kind"] == "bad_request"
        store.configure(tmp_path / "test.db")
        assert store.result("jobs") == {"jobs": []}


def test_full_disk_is_an_answer_to_all_of_the_group_and_the_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    with running_store(path) as store:
        store.result(**accept(new_job()))
        # the file-size limit of one process stands for a full disk
        size = (tmp_path / "test.db-wal").stat().st_size
        _, hard = resource.prlimit(store.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(store.process.pid, resource.RLIMIT_FSIZE, (size, hard))
        jobs = [new_job() for _ in range(50)]
        refused = _all_at_once(store, jobs)
        assert {reply.get("kind") for reply in refused} == {"database"}
        assert "nothing was changed" in refused[0]["error"]

        resource.prlimit(store.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert len(store.result("jobs")["jobs"]) == 1
        assert all(reply["ok"] for reply in _all_at_once(store, jobs))
        assert len(store.result("jobs")["jobs"]) == 51


def _all_at_once(store: Store, jobs: list[str]) -> list[Message]:
    store.stop()
    ids = store.write([accept(job) for job in jobs])
    store.go_on()
    return [store.read() for _ in ids]


def test_file_that_is_no_database_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "test.db").write_text("not a database\n" * 100)
    with running_store() as store:
        assert "not a database" in store.ask("configure", url=f"sqlite:///{tmp_path / 'test.db'}", host=HOST)["error"]


@pytest.mark.parametrize("host", [None, "", "0123456789AB", "0123456789abc", 7])
def test_a_host_that_is_no_owner_id_is_refused(host: object, tmp_path: Path) -> None:
    with running_store() as store:
        assert "by its owner id" in store.ask("configure", url=f"sqlite:///{tmp_path}/test.db", host=host)["error"]
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["postgresql:/secret@", "nosuchsystem://user:secret@host/x", "", 7])
def test_unusable_url_is_refused_without_its_password(url: object) -> None:
    with running_store() as store:
        reply = store.ask("configure", url=url, host=HOST)
        assert not reply["ok"]
        assert "secret" not in reply["error"]

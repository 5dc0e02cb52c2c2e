"""`solstice dead-letters` as a program, against a real RabbitMQ."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pika
import pytest

from solstice.broker.topology import DEAD_LETTERS, Topology
from tests.real.broker import Broker

pytestmark = pytest.mark.broker

ROOT = Path(__file__).resolve().parents[2]
JOBS = Topology()
QUEUE = JOBS.dead_letter_queue
ID = "0b7e5c1a-1111-4222-8333-444455556666"
REFUSED = "2023-11-14T22:13:20Z"  # 1700000000


@pytest.fixture
def url(vhost: str) -> str:
    """A vhost with the queues, and one dead letter."""
    with pika.BlockingConnection(pika.URLParameters(vhost)) as connection:
        channel = connection.channel()
        for declaration in JOBS.declarations:
            getattr(channel, declaration.method)(**declaration.arguments)
    put(vhost, b'{"runs_on": "windows-95"}', ID)
    return vhost


def put(url: str, body: bytes, name: str, **more: object) -> None:
    headers = {"x-solstice-reason": "request.unschedulable", "x-solstice-detail": "no such label", **more}
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(message_id=name, headers=headers, timestamp=1_700_000_000)
        channel.basic_publish(DEAD_LETTERS, QUEUE, body, properties, mandatory=True)


def count(url: str, queue: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        found: int = connection.channel().queue_declare(queue, passive=True).method.message_count
        return found


def dead_letters(url: str, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "solstice", "dead-letters", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "AMQP_URL": url, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )


def on_terminal(url: str, *words: str) -> bytes:
    """What the command writes to a terminal."""
    master, slave = pty.openpty()
    with os.fdopen(master, "rb", buffering=0) as terminal, os.fdopen(slave, "wb") as other:
        subprocess.run(
            [sys.executable, "-m", "solstice", "dead-letters", *words],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "AMQP_URL": url},
            stdin=subprocess.DEVNULL,
            stdout=other,
            timeout=60,
            check=True,
        )
        return terminal.read(1 << 16)


def test_the_list_is_a_table_for_people(url: str) -> None:
    head, row = dead_letters(url, "list").stdout.decode().splitlines()
    assert head.split() == ["ID", "REASON", "LABEL", "BYTES", "REFUSED", "DETAIL"]
    assert row.split(None, 5) == [ID[:8], "request.unschedulable", "windows-95", "25", REFUSED, "no such label"]


def test_the_list_in_json_has_all_of_the_id(url: str) -> None:
    (letter,) = json.loads(dead_letters(url, "list", "--json").stdout)
    assert letter == {
        "id": ID,
        "reason": "request.unschedulable",
        "detail": "no such label",
        "label": "windows-95",
        "size": 25,
        "truncated": False,
        "at": 1_700_000_000,
    }


def test_the_files_for_tls_come_from_the_settings(url: str, broker: Broker) -> None:
    mine = broker.authority.certificate("command", "extendedKeyUsage=clientAuth")
    files = {"AMQP_CA_FILE": str(broker.authority.ca), "AMQP_CERT_FILE": str(mine.cert)}
    secure = broker.tls_url(urlsplit(url).path[1:])
    done = dead_letters(secure, "list", "--json", "--amqp-key-file", str(mine.key), **files)
    assert [letter["id"] for letter in json.loads(done.stdout)] == [ID]
    without = dead_letters(secure, "list")
    assert without.returncode == 2
    assert b"AMQP_CA_FILE" in without.stderr
    assert broker.password.encode() not in without.stderr


def test_an_empty_list_is_no_error(url: str) -> None:
    assert dead_letters(url, "requeue", "--all").stdout == b"1 sent again\n"
    assert json.loads(dead_letters(url, "list", "--json").stdout) == []
    assert dead_letters(url, "list").returncode == 0


def test_one_is_shown_by_the_beginning_of_its_id(url: str) -> None:
    text = dead_letters(url, "show", ID[:8]).stdout.decode()
    assert f"id: {ID}\nrefused: {REFUSED}\nbytes: 25\n" in text
    assert "x-solstice-detail: no such label\n" in text
    assert text.endswith('\n\n{"runs_on": "windows-95"}\n')


def test_one_is_shown_in_json(url: str) -> None:
    shown = json.loads(dead_letters(url, "show", ID, "--json").stdout)
    assert (shown["id"], shown["body"], shown["label"]) == (ID, '{"runs_on": "windows-95"}', "windows-95")
    assert shown["headers"]["x-solstice-reason"] == "request.unschedulable"


def test_bytes_in_json_are_base64(url: str) -> None:
    put(url, b"\xff\x00", "bytes", blob=b"\xfe")
    shown = json.loads(dead_letters(url, "show", "bytes", "--json").stdout)
    assert shown["body_base64"] == "/wA="


def test_no_control_character_reaches_a_terminal(url: str) -> None:
    put(url, b"\x1b]0;owned\x07", "evil", **{"x-solstice-detail": "\x1b]0;owned\x07\rline", "trace": "a\x9bb"})
    shown = on_terminal(url, "show", "evil")
    assert b"owned" in shown
    for each in (b"\x1b", b"\x07", b"\rline", "\x9b".encode()):
        assert each not in shown
        assert each not in on_terminal(url, "list")


def test_a_pipe_gets_the_body_as_it_is(url: str) -> None:
    put(url, b"\x1b]0;\x07\xff", "evil")
    assert dead_letters(url, "show", "evil").stdout.endswith(b"\n\n\x1b]0;\x07\xff\n")


def test_requeue_tells_how_many_and_removes_them(url: str) -> None:
    assert dead_letters(url, "requeue", ID[:8]).stdout == b"1 sent again\n"
    assert (count(url, JOBS.queue), count(url, QUEUE)) == (1, 0)


def test_what_was_cut_is_refused_with_the_reason(url: str) -> None:
    put(url, b"x", "cut", **{"x-solstice-truncated": True, "x-solstice-size": 2_000_000})
    done = dead_letters(url, "requeue", "--all")
    assert (done.returncode, done.stdout) == (2, b"1 sent again\n")
    assert b"only the beginning of the request was kept: cut" in done.stderr
    assert count(url, QUEUE) == 1


@pytest.mark.parametrize("words", [["show", "none"], ["requeue", "none"]])
def test_an_unknown_id_exits_with_2(url: str, words: list[str]) -> None:
    done = dead_letters(url, *words)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"dead letter none: there is none of that id" in done.stderr


@pytest.mark.parametrize("words", [["requeue"], ["requeue", "--all", ID]])
def test_requeue_takes_either_ids_or_all(url: str, words: list[str]) -> None:
    done = dead_letters(url, *words)
    assert done.returncode == 2
    assert b"either IDs or --all" in done.stderr
    assert count(url, QUEUE) == 1

"""The log is one line an event, whatever the values hold, and shows no password."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.logs import JsonFormatter, TextFormatter, mask_url, setup

log = logging.getLogger("solstice.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("solstice")
    before = (root.handlers[:], root.level, own.level)
    root.handlers = []  # pytest's own stay its own: setup() would close them
    yield
    root.handlers, level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


def test_text_line_has_time_level_message_and_context() -> None:
    stream = io.StringIO()
    setup("info", "text", stream, job="7f3a91c2")
    log.info("the VM is %s", "up", extra={"label": "ubuntu-22.04", "detail": 'said "no"'})
    line = stream.getvalue()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info  the VM is up ", line)
    assert line.endswith('the VM is up job=7f3a91c2 label=ubuntu-22.04 detail="said \\"no\\""\n')


def test_json_line_is_one_object() -> None:
    stream = io.StringIO()
    setup("info", "json", stream)
    log.warning("a\nb", extra={"attempt": 2, "cause": "infra.image", "url": "amqp://u:secret@h/"})
    document = json.loads(stream.getvalue())
    assert document.pop("time").endswith("Z")
    assert document == {
        "level": "warning",
        "logger": "solstice.test",
        "message": "a\nb",
        "attempt": 2,
        "cause": "infra.image",
        "url": "amqp://u:***@h/",
    }


@given(st.text(), st.text())
def test_no_value_can_forge_a_line(message: str, value: str) -> None:
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO", "detail": value})
    assert len(TextFormatter({}).format(record).splitlines()) == 1
    assert len(JsonFormatter({}).format(record).splitlines()) == 1


def test_hostile_value_cannot_end_its_quotes() -> None:
    record = logging.makeLogRecord({"msg": "m", "levelname": "INFO", "detail": 'x" job=other \\'})
    assert TextFormatter({}).format(record).endswith(r'm detail="x\" job=other \\"')


def _fail(why: str) -> None:
    raise ValueError(why)


def test_traceback_stays_behind_its_margin() -> None:
    stream = io.StringIO()
    setup("info", "text", stream)
    try:
        _fail("first\n2026-11-24T08:00:00.123Z error forged amqp://u:secret@h/")
    except ValueError:
        log.exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("error failed")
    assert rest
    assert all(line.startswith("    | ") for line in rest)
    assert "secret" not in stream.getvalue()


def test_libraries_are_heard_from_warning_on() -> None:
    stream = io.StringIO()
    setup("debug", "text", stream)
    logging.getLogger("urllib3.connectionpool").info("step 17 of a connection")
    logging.getLogger("urllib3.connectionpool").warning("lost")
    log.debug("ours")
    assert [line.split()[2] for line in stream.getvalue().splitlines()] == ["lost", "ours"]


def test_second_setup_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    setup("info", "text", first)
    setup("error", "text", second)
    log.info("not wanted")
    log.error("wanted")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("amqp://guest:guest@localhost:5672/%2F", "amqp://guest:***@localhost:5672/%2F"),
        ("amqp://guest:p@ss@localhost", "amqp://guest:***@localhost"),
        ("see https://token@forge/x.git, and https://a:b@c/", "see https://***@forge/x.git, and https://***@c/"),
        ("ssh://git@forge/x.git", "ssh://git@forge/x.git"),
        ("sqlite:////var/lib/solstice/solstice.db", "sqlite:////var/lib/solstice/solstice.db"),
        ("http://host:80/a@b", "http://host:80/a@b"),
    ],
)
def test_mask_url_hides_passwords_and_tokens(text: str, masked: str) -> None:
    assert mask_url(text) == masked

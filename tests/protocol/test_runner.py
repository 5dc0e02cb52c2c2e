"""The decoder loses, adds and believes nothing; the quoting is that of real shells."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solstice.errors import InternalError
from solstice.protocol.runner import (
    CHECKOUT,
    MAX_RECORD,
    Bye,
    Decoder,
    Event,
    Hello,
    Output,
    Rebooted,
    StepEnd,
    StepStart,
    Unsendable,
    bye,
    cancel,
    checkout,
    quote,
    step,
    welcome,
)

NONCE = "0123456789abcdef" * 2
GUARD = "fedcba9876543210" * 2
OTHER = "00112233445566778899aabbccddeeff"
SHELLS = [["dash"], ["bash"], ["busybox", "ash"], ["ksh93"], ["mksh"]]


def record(key: str, **fields: object) -> bytes:
    return b"\x1e" + key.encode() + json.dumps(fields).encode() + b"\n"


HELLO = record("", type="hello", protocol=1, system="Linux 6.1.0 x86_64")
GENUINE: dict[bytes, Event] = {
    record(NONCE, type="step_end", index=3, exit_code=143): StepEnd(3, 143),
    record(NONCE, type="step_end", index=-1, exit_code=127): StepEnd(CHECKOUT, 127),
    record(NONCE, type="step_start", index=3): StepStart(3),
    record(NONCE, type="step_start", index=-1, at=1_700_000_000): StepStart(CHECKOUT, 1_700_000_000),
    record(NONCE, type="step_end", index=3, exit_code=0, at=1_700_000_000): StepEnd(3, 0, 1_700_000_000),
    record(NONCE, type="bye"): Bye(),
    record(NONCE, type="bye", later_field=[1, {"a": "b"}]): Bye(),
    record(GUARD, type="rebooted"): Rebooted(),
}
FORGED = [
    HELLO,
    record("", type="step_end", index=0, exit_code=0),
    record(OTHER, type="step_end", index=0, exit_code=0),
    record(GUARD, type="step_end", index=0, exit_code=0),
    record(NONCE[:-1], type="bye"),
    record(NONCE.upper(), type="bye"),
    record(OTHER, type="rebooted"),
    record("", type="rebooted"),
    # whoever knows the nonce is the runner, but what does not parse is still no record
    record(NONCE, type="rebooted"),
    record(NONCE, type="unheard-of"),
    record(NONCE, type="step_end", index=0, exit_code=256),
    record(NONCE, type="step_end", index=0, exit_code=True),
    record(NONCE, type="step_end", index="0", exit_code=0),
    record(NONCE, type="step_end", exit_code=0),
    record("", type="step_start", index=0),
    record(NONCE, type="step_start", index="0"),
    record(NONCE, type="step_start"),
    b"\x1e" + NONCE.encode() + b"[]\n",
    b"\x1e" + NONCE.encode() + b"{" * 3000 + b"\n",
    b"\x1e" + NONCE.encode() + b'{"type":"bye","n":' + b"1" * MAX_RECORD + b"}\n",
    b"\x1e" + NONCE.encode() + b'{"type":"bye"\n}\n',
]
FRAGMENTS = [
    b"\x1e",
    b"\x1e\x1e",
    NONCE[:-1].encode(),
    b"\x1e" + NONCE.encode() + b"{",
    b"{",
    b"\n",
    b"\x1e{",
    b"\0\xff",
]

outputs = st.one_of(st.binary(max_size=40), st.sampled_from(FORGED), st.sampled_from(FRAGMENTS))
pieces = st.lists(st.one_of(outputs, st.sampled_from(list(GENUINE))), max_size=25)


def decode(decoder: Decoder, chunks: Iterable[bytes]) -> list[Event]:
    """The events of all chunks and of the end, with neighbouring outputs joined."""
    events: list[Event] = []
    for chunk in chunks:
        events += decoder.feed(chunk)
    rest = decoder.flush()
    return joined([*events, Output(rest)] if rest else events)


def joined(events: list[Event]) -> list[Event]:
    result: list[Event] = []
    for event in events:
        if isinstance(event, Output) and result and isinstance(result[-1], Output):
            result[-1] = Output(result[-1].data + event.data)
        else:
            result.append(event)
    return result


def greeted() -> Decoder:
    decoder = Decoder(NONCE, GUARD)
    assert decoder.feed(HELLO) == [Hello(1, "Linux 6.1.0 x86_64")]
    return decoder


@settings(max_examples=400, deadline=None)
@given(pieces, st.lists(st.integers(1, 200), max_size=60))
def test_any_chunking_of_output_and_records_gives_the_same_events_and_every_byte(
    stream: list[bytes], cuts: list[int]
) -> None:
    expected = joined([GENUINE.get(piece, Output(piece)) for piece in stream if piece])
    data = b"".join(stream)
    chunks = []
    at = 0
    for cut in cuts:
        chunks.append(data[at : at + cut])
        at += cut
    assert decode(greeted(), [*chunks, data[at:]]) == expected
    assert decode(greeted(), [data[i : i + 1] for i in range(len(data))]) == expected


@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_forged_and_malformed_records_are_output(forged: bytes) -> None:
    assert decode(greeted(), [b"before", forged, b"after"]) == [Output(b"before" + forged + b"after")]


@pytest.mark.parametrize("at", [-1, 1.5, True, "1700000000", None, [], {}, 253_402_300_800, 10**3000, float("nan")])
def test_a_time_that_is_none_costs_the_time_and_not_the_record(at: object) -> None:
    assert decode(greeted(), [record(NONCE, type="step_start", index=0, at=at)]) == [StepStart(0)]
    assert decode(greeted(), [record(NONCE, type="step_end", index=0, exit_code=0, at=at)]) == [StepEnd(0, 0)]
    hello = record("", type="hello", protocol=1, system="x", at=at)
    assert Decoder(NONCE, GUARD).feed(hello) == [Hello(1, "x")]


def test_transcript_of_another_job_is_output() -> None:
    transcript = HELLO + b"hi\n" + record(OTHER, type="step_end", index=0, exit_code=0) + record(OTHER, type="bye")
    assert decode(greeted(), [transcript]) == [Output(transcript)]


def test_what_comes_before_hello_is_output() -> None:
    noise = b'login: \x1e\x1e{}\n\x1e{"type":"hello"}\n'
    assert decode(Decoder(NONCE, GUARD), [noise + HELLO + b"x"]) == [
        Output(noise),
        Hello(1, "Linux 6.1.0 x86_64"),
        Output(b"x"),
    ]


def test_reboot_is_believed_before_and_after_hello() -> None:
    rebooted = record(GUARD, type="rebooted")
    assert decode(Decoder(NONCE, GUARD), [rebooted]) == [Rebooted()]
    assert decode(greeted(), [rebooted]) == [Rebooted()]


@pytest.mark.parametrize("size", [MAX_RECORD - 1, MAX_RECORD, MAX_RECORD + 1])
def test_a_record_has_at_most_max_record_bytes_however_it_arrives(size: int) -> None:
    begin, end = b"\x1e" + NONCE.encode() + b'{"type":"bye","x":"', b'"}\n'
    data = begin + b"x" * (size - len(begin) - len(end)) + end
    expected = [Bye()] if size <= MAX_RECORD else [Output(data)]
    assert decode(greeted(), [data]) == expected
    assert decode(greeted(), [data[i : i + 1] for i in range(size)]) == expected


@pytest.mark.parametrize(
    "output", [b"plain", b"\x1e{", b"a\x1eb", b"\x1e" + OTHER.encode(), b"\x1e" + NONCE.encode() + b"["]
)
def test_only_what_may_become_a_record_is_held_back(output: bytes) -> None:
    assert greeted().feed(output) == [Output(output)]


def test_a_beginning_of_a_record_is_held_back_and_given_at_the_end() -> None:
    decoder = greeted()
    assert decoder.feed(b"out\x1e" + NONCE[:7].encode()) == [Output(b"out")]
    assert decoder.flush() == b"\x1e" + NONCE[:7].encode()
    assert decoder.flush() == b""


@pytest.mark.parametrize(
    "unit", [b"x" * 79 + b"\n", b"\x1e", b"\x1e" + NONCE.encode(), b"\x1e" + NONCE.encode() + b"{" * 99]
)
def test_output_is_decoded_fast_whatever_it_is(unit: bytes) -> None:
    chunk = unit * (65536 // len(unit))
    decoder = greeted()
    begin = time.process_time()
    size = sum(len(event.data) for _ in range(64) for event in decoder.feed(chunk) if isinstance(event, Output))
    assert time.process_time() - begin < 2
    assert size + len(decoder.flush()) == 64 * len(chunk)


@pytest.mark.parametrize(
    ("nonce", "guard"), [(NONCE, NONCE), ("", GUARD), (NONCE.upper(), GUARD), (NONCE, GUARD + "\n")]
)
def test_unusable_secrets_are_refused(nonce: str, guard: str) -> None:
    with pytest.raises(InternalError, match="unusable secrets"):
        Decoder(nonce, guard)


# st.text() has no surrogates, which UTF-8 cannot say.
text = st.text(max_size=60).map(lambda value: value.replace("\0", ""))


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@settings(max_examples=40, deadline=None)
@given(st.lists(text, max_size=20))
def test_quote_gives_one_word_with_the_same_bytes_in_a_real_shell(shell: list[str], values: list[str]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"{shell[0]} is not installed")
    values = [*values, "it's", '$HOME `id` \\ "', "a\nb\n", "", "-n", "*"]
    # `env printf` because mksh has no builtin; a trailing dot because a shell's $(…) is not involved, and NUL separates
    script = "env printf '%s\\0' " + " ".join(map(quote, values))
    done = subprocess.run([*shell, "-s"], input=script.encode(), capture_output=True, check=True)
    assert done.stdout == b"".join(value.encode() + b"\0" for value in values)


def test_messages_are_lines_that_end_with_their_verb() -> None:
    assert welcome(NONCE, GUARD) == f"nonce='{NONCE}'\nguard='{GUARD}'\nverb='welcome'\n".encode()
    assert (
        checkout("https://a/b'c", "1" * 40)
        == b"url='https://a/b'\\''c'\nsha='" + b"1" * 40 + b"'\nref=''\nverb='checkout'\n"
    )
    assert cancel() == b"verb='cancel'\n"
    assert bye() == b"verb='bye'\n"


def test_a_step_is_followed_by_blocks_of_the_sizes_it_names() -> None:
    exports, script = b"export A='\xc3\xa4\n'\n", "écho\n".encode()
    header = f"index='2'\nenv_size='{len(exports)}'\nscript_size='{len(script)}'\nverb='step'\n".encode()
    assert step(2, {"A": "ä\n"}, "écho\n") == header + exports + script


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A;id", "A\n", "Ä"])
def test_a_variable_that_no_shell_can_have_is_refused(name: str) -> None:
    with pytest.raises(Unsendable, match="no shell has variables"):
        step(0, {name: "x"}, "")


def test_nul_newline_in_a_field_and_surrogates_are_refused() -> None:
    with pytest.raises(Unsendable, match="NUL"):
        quote("a\0b")
    with pytest.raises(Unsendable, match="more than one line"):
        checkout("https://a\nverb='bye'", "1" * 40)
    with pytest.raises(Unsendable, match="surrogates"):
        step(0, {}, "\ud800")

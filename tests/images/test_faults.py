"""What can go wrong between a server and a pull, injected by a proxy before a real nginx."""

import hashlib
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from solstice.errors import InfraError
from solstice.images import download, fetch, pipeline
from solstice.images.pipeline import Origin
from solstice.model import Compression
from tests.images.faults import Fault, Proxy, between
from tests.images.pulling import DISK, MIB, Puller
from tests.real.nginx import Nginx
from tests.sources import ROOT

pytestmark = pytest.mark.nginx

PATIENCE = 20.0
PACKED = zstandard.ZstdCompressor(write_checksum=True).compress(DISK)
SIZE = len(PACKED)
TENTHS = [SIZE * tenth // 10 for tenth in range(11)]


@pytest.fixture
def served(nginx: Nginx, tmp_path: Path) -> Iterator[Path]:
    """What nginx has."""
    path = nginx.files / f"{tmp_path.name}.zst"
    path.write_bytes(PACKED)
    yield path
    path.unlink()


@pytest.fixture
def proxy(nginx: Nginx) -> Iterator[Proxy]:
    with between(nginx.url) as running:
        yield running


@pytest.fixture
def puller(proxy: Proxy, served: Path, tmp_path: Path) -> Puller:
    return Puller(tmp_path, f"{proxy.url}/{served.name}", Compression.ZSTD)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of a test's length."""
    monkeypatch.setattr(download, "FIRST_WAIT", 0.01)


def refusal(puller: Puller) -> InfraError:
    with pytest.raises(InfraError) as caught:
        puller.pull()
    assert caught.value.remedy
    return caught.value


def ranges(proxy: Proxy) -> list[str]:
    return [passed.range for passed in proxy.passed]


@pytest.mark.parametrize("cut", TENTHS[:-1])
def test_a_connection_that_is_cut_is_resumed_where_it_was(proxy: Proxy, puller: Puller, cut: int) -> None:
    proxy.faults = [Fault(cut=cut)]
    assert puller.content() == DISK
    assert ranges(proxy) == ["", f"bytes={cut}-" if cut else ""]
    assert [passed.sent for passed in proxy.passed] == [cut, SIZE - cut]


def test_connections_that_are_cut_at_every_tenth_bring_the_whole_in_the_end(
    proxy: Proxy, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WORTHWHILE", TENTHS[1] // 2)
    proxy.faults = [Fault(cut=end - begin) for begin, end in itertools.pairwise(TENTHS[:-1])]
    assert puller.content() == DISK
    assert sum(passed.sent for passed in proxy.passed) == SIZE
    assert len(proxy.passed) == 10


def test_a_line_that_breaks_again_and_again_is_left_to_a_later_pull(proxy: Proxy, puller: Puller) -> None:
    proxy.faults = [Fault(cut=1000)] * download.TRIES
    error = refusal(puller)
    assert f"the connection ended after {1000 * download.TRIES} of {SIZE} bytes" in error.why
    assert f"{download.TRIES} times in a row" in error.why
    assert puller.part.stat().st_size == 1000 * download.TRIES
    assert puller.content() == DISK
    assert sum(passed.sent for passed in proxy.passed) == SIZE


def test_a_length_that_is_too_large_ends_after_a_few_tries(proxy: Proxy, puller: Puller) -> None:
    proxy.faults = [Fault(claim=10)] * download.TRIES * 2
    assert "its server cannot go on" in refusal(puller).why
    proxy.faults = []
    assert puller.content() == DISK


def test_a_length_that_is_too_small_is_a_cut_file(proxy: Proxy, puller: Puller) -> None:
    proxy.faults = [Fault(claim=-10)]
    assert "ends too early" in refusal(puller).why
    assert puller.left() == set()


def test_a_wrong_byte_is_found_and_nothing_of_it_is_kept(proxy: Proxy, puller: Puller) -> None:
    proxy.faults = [Fault(flip=SIZE // 2)] * 2
    assert "damaged" in refusal(puller).why
    assert puller.left() == set()
    digest = hashlib.sha256(PACKED).hexdigest()
    puller.wanting(decompress=Compression.NONE, sha256=digest.upper())
    why = refusal(puller).why
    assert f"and {digest} is expected" in why
    assert puller.left() == set()
    assert puller.content() == PACKED


@pytest.mark.parametrize("without", [(), ("If-Range",), ("If-Range", "ETag")])
def test_a_source_that_changes_in_the_middle_of_a_resume_begins_anew(
    proxy: Proxy, puller: Puller, served: Path, without: tuple[str, ...]
) -> None:
    """Also behind a server that does not heed If-Range, and answers with the rest of another file."""
    other = DISK[::-1]

    def change() -> None:
        served.write_bytes(zstandard.ZstdCompressor().compress(other))

    proxy.faults = [Fault(cut=SIZE // 2), Fault(before=change, without=without)]
    origin = puller.pull()
    assert puller.output.read_bytes() == other
    assert origin is not None
    assert origin.digest == f"sha256:{hashlib.sha256(served.read_bytes()).hexdigest()}"


def test_a_part_of_what_the_source_had_before_is_not_used(proxy: Proxy, puller: Puller, served: Path) -> None:
    proxy.faults = [Fault(cut=SIZE // 2), Fault(status=404)]
    assert "404" in refusal(puller).why
    assert puller.part.stat().st_size == SIZE // 2
    served.write_bytes(zstandard.ZstdCompressor().compress(b"short"))
    assert puller.content() == b"short"
    assert [passed.status for passed in proxy.passed] == [200, 404, 200]


def test_a_source_that_never_stays_the_same_is_given_up(proxy: Proxy, puller: Puller, served: Path) -> None:
    def change() -> None:
        served.write_bytes(PACKED[: SIZE // 2] + bytes(len(proxy.passed)))

    proxy.faults = [Fault(before=change, cut=1000)] * 20
    assert "it changes while it is fetched" in refusal(puller).why


def test_without_a_validator_nothing_is_resumed(proxy: Proxy, puller: Puller) -> None:
    nameless = ("ETag", "Last-Modified")
    proxy.faults = [Fault(cut=SIZE // 2, without=nameless), Fault(without=nameless), Fault(without=nameless)]
    assert puller.content() == DISK
    assert set(ranges(proxy)) == {""}


def test_a_server_without_etags_is_asked_by_the_date(proxy: Proxy, puller: Puller) -> None:
    proxy.faults = [Fault(cut=SIZE // 2, without=("ETag",))]
    assert puller.content() == DISK
    assert [passed.status for passed in proxy.passed] == [200, 206]


def test_a_missing_file_is_not_asked_for_twice(proxy: Proxy, puller: Puller) -> None:
    proxy.faults = [Fault(status=404)] * 2
    assert "404" in refusal(puller).why
    assert len(proxy.passed) == 1
    assert puller.left() == set()


def test_a_server_that_is_busy_is_asked_again_when_it_said(proxy: Proxy, puller: Puller) -> None:
    proxy.faults = [Fault(status=503, retry_after="1"), Fault(status=429)]
    began = time.monotonic()
    assert puller.content() == DISK
    assert time.monotonic() - began >= 1
    assert [passed.status for passed in proxy.passed] == [503, 429, 200]


def test_a_server_that_is_busy_for_long_is_left_to_a_later_pull(proxy: Proxy, puller: Puller) -> None:
    proxy.faults = [Fault(status=503, retry_after="3600")]
    assert "503" in (error := refusal(puller)).why
    assert "asks to wait 3600 s" in error.why
    assert len(proxy.passed) == 1


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_stays_broken_is_given_up(proxy: Proxy, puller: Puller, status: int) -> None:
    proxy.faults = [Fault(status=status)] * download.TRIES * 2
    assert f"{status}" in refusal(puller).why
    assert len(proxy.passed) == download.TRIES


def test_a_stall_ends_and_a_later_pull_fetches_the_rest(
    proxy: Proxy, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "READ_TIMEOUT", 0.3)
    proxy.faults = [Fault(stall=SIZE // 2)]
    assert "nothing came for 0.3 s" in refusal(puller).why
    kept = puller.part.stat().st_size
    assert SIZE // 2 - fetch.READ_SIZE < kept <= SIZE // 2
    assert puller.content() == DISK
    assert ranges(proxy) == ["", f"bytes={kept}-"]


def test_a_trickle_ends_too(proxy: Proxy, puller: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "STALL", 0.5)
    proxy.faults = [Fault(drip=True)]
    began = time.monotonic()
    assert "too little came for 0.5 s" in refusal(puller).why
    assert time.monotonic() - began < 5
    assert puller.content() == DISK


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.AUTO, Compression.ZSTD])
def test_endless_zeros_end(proxy: Proxy, puller: Puller, compression: Compression) -> None:
    proxy.faults = [Fault(endless=True)]
    error = refusal(puller.wanting(decompress=compression, max_size=16 * MIB))
    assert ("`decompress: auto`" if compression is Compression.ZSTD else "`max_size`") in error.remedy
    assert puller.left() == set()


_PULL = """\
import os, sys
from pathlib import Path
from solstice.images.pipeline import pull
from solstice.model import Compression, Image
url, name = sys.argv[1], Path(sys.argv[2])
output = os.open(name, os.O_RDWR | os.O_CREAT)
pull(Image("tiny", url, name, Compression.ZSTD), name.with_name("tiny.part"), output, lambda count, size: None)
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("at", [0, 1, fetch.READ_SIZE, MIB, MIB + 1, SIZE // 2, SIZE - 1, SIZE])
def test_a_killed_pull_is_gone_on_with_where_it_was(proxy: Proxy, puller: Puller, tmp_path: Path, at: int) -> None:
    """Killed when so much has been sent and the part has grown as far as it will; at `SIZE`, when all is done."""
    proxy.faults = [Fault(stall=at)] if at < SIZE else []
    argv = [sys.executable, "-c", _PULL, puller.image.source, str(tmp_path / "tiny.stage")]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        expected = at // fetch.READ_SIZE * fetch.READ_SIZE if at < SIZE else SIZE
        if at == SIZE:
            assert process.stdout is not None
            assert process.stdout.readline() == b"done\n"
        else:
            until(lambda: bool(proxy.passed) and proxy.passed[0].sent == at and size(puller) == expected)
        process.send_signal(signal.SIGKILL)
    assert size(puller) == expected
    assert puller.content() == DISK
    assert [passed.sent for passed in proxy.passed] == [at, SIZE - expected or 1]


def size(puller: Puller) -> int:
    return puller.part.stat().st_size if puller.part.exists() else 0


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_part_without_its_record_is_not_used(proxy: Proxy, puller: Puller) -> None:
    for record in (None, b"", b"{}", b"[1]", b'{"url": 1, "etag": 2, "modified": 3, "length": "4"}'):
        puller.drop()
        puller.part.write_bytes(b"rubbish")
        if record is not None:
            puller.part.with_name("tiny.part.json").write_bytes(record)
        assert puller.content() == DISK
    assert set(ranges(proxy)) == {""}


def test_a_known_source_is_told_apart_from_a_part_of_a_newer_one(proxy: Proxy, puller: Puller, served: Path) -> None:
    first = puller.pull()
    puller.drop()
    served.write_bytes(newer := zstandard.ZstdCompressor().compress(DISK * 2))
    proxy.faults = [Fault(cut=MIB), Fault(status=404)]
    with pytest.raises(InfraError, match="404"):
        puller.pull(first)
    second = puller.pull(first)
    assert second is not None
    assert second.digest == f"sha256:{hashlib.sha256(newer).hexdigest()}"
    assert [passed.sent for passed in proxy.passed][1:] == [MIB, 0, len(newer) - MIB]
    assert puller.pull(second) is None
    assert isinstance(first, Origin)

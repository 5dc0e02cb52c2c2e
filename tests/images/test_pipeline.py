"""Pulls that go well, and those that the image map or the disk ends, from a real nginx and from files."""

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import quote

import pytest
import zstandard

from solstice.errors import Cause, InfraError
from solstice.images import pipeline
from solstice.images.download import Download
from solstice.images.intake import Ended, Intake
from solstice.images.part import open_part
from solstice.images.pipeline import Origin
from solstice.model import Compression
from tests.images.conftest import Server, begin
from tests.images.pulling import DISK, MIB, Puller
from tests.real.nginx import PASSWORD, RATE, USER, Nginx
from tests.sources import ROOT

PACK: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.ZSTD: zstandard.ZstdCompressor().compress,
    Compression.GZIP: gzip.compress,
    Compression.XZ: lzma.compress,
    Compression.BZIP2: bz2.compress,
}


@pytest.fixture
def served(nginx: Nginx, tmp_path: Path) -> Iterator[Path]:
    """A file that nginx serves under its own name, with the disk in it."""
    path = nginx.files / f"{tmp_path.name}.img"
    path.write_bytes(DISK)
    yield path
    path.unlink()


def refusal(puller: Puller) -> InfraError:
    with pytest.raises(InfraError) as caught:
        puller.pull()
    assert caught.value.remedy
    return caught.value


@pytest.mark.nginx
@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("compression", list(PACK))
def test_a_disk_comes_whole_and_sparse(
    nginx: Nginx, served: Path, tmp_path: Path, compression: Compression, auto: bool
) -> None:
    packed = PACK[compression](DISK)
    served.write_bytes(packed)
    puller = Puller(tmp_path, f"{nginx.url}/{served.name}", Compression.AUTO if auto else compression)
    origin = puller.pull()
    assert puller.output.read_bytes() == DISK
    assert puller.output.stat().st_blocks * 512 < len(DISK) - 2 * MIB
    assert origin is not None
    assert (origin.digest, origin.size) == (f"sha256:{hashlib.sha256(packed).hexdigest()}", len(packed))
    assert origin.etag.startswith('"')
    assert origin.modified.endswith(" GMT")
    assert puller.part.read_bytes() == packed
    puller.drop()
    assert puller.left() == set()


@pytest.mark.nginx
def test_tls_is_checked_against_an_authority_of_the_operator(
    nginx: Nginx, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    puller = Puller(tmp_path, f"{nginx.tls_url}/{served.name}")
    assert "certificate verify failed" in refusal(puller).why
    assert puller.left() == set()
    monkeypatch.setenv("SSL_CERT_FILE", str(nginx.ca))
    assert puller.content() == DISK
    puller.wanting(source=f"{nginx.tls_url}/away/{served.name}")
    assert "redirects from https to http" in refusal(puller).why


@pytest.mark.nginx
def test_a_redirect_is_followed(nginx: Nginx, served: Path, tmp_path: Path) -> None:
    assert Puller(tmp_path, f"{nginx.url}/moved/{served.name}").content() == DISK


@pytest.mark.nginx
def test_the_credentials_of_the_source_are_used_and_not_kept_on_disk(
    nginx: Nginx, served: Path, tmp_path: Path
) -> None:
    url = f"{nginx.url}/private/{served.name}"
    assert "401" in refusal(Puller(tmp_path, url)).why
    puller = Puller(tmp_path, url.replace("//", f"//{USER}:{quote(PASSWORD)}@"))
    assert puller.content() == DISK
    assert quote(PASSWORD) not in puller.part.with_name("tiny.part.json").read_text()


@pytest.mark.nginx
def test_a_source_that_is_known_is_not_fetched_again(nginx: Nginx, served: Path, tmp_path: Path) -> None:
    puller = Puller(tmp_path, f"{nginx.url}/{served.name}")
    origin = puller.pull()
    puller.drop()
    assert origin is not None
    assert puller.pull(origin) is None
    assert puller.pull(Origin("", 0, modified=origin.modified)) is None
    assert puller.output.read_bytes() == b""
    assert puller.left() == set()
    served.write_bytes(b"new" + DISK)
    renewed = puller.pull(origin)
    assert renewed is not None
    assert renewed.digest != origin.digest
    assert puller.output.read_bytes() == b"new" + DISK


@pytest.mark.nginx
def test_what_is_there_is_not_fetched_again_after_the_watcher_gave_up(
    nginx: Nginx, served: Path, tmp_path: Path
) -> None:
    path = f"/slow/{served.name}"
    puller = Puller(tmp_path, nginx.url + path)
    seen: list[tuple[int, int | None]] = []

    def watch(count: int, size: int | None) -> None:
        seen.append((count, size))
        if count > RATE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        puller.pull(watch=watch)
    assert len(seen) > 1
    assert seen[-1][1] == len(DISK)
    kept = puller.part.stat().st_size
    assert kept >= seen[-1][0] > 0
    # the same source, now without the limit on its rate, but another URL: nothing of the part is used
    puller.wanting(source=f"{nginx.url}/{served.name}")
    assert puller.content() == DISK
    assert nginx.asked(f"/{served.name}")[-1].range == "-"
    # and what is whole already is asked for its last byte
    assert puller.content() == DISK
    until_logged(nginx, f"/{served.name}", 2)
    assert nginx.asked(f"/{served.name}")[-1].count == 1


def until_logged(nginx: Nginx, path: str, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(nginx.asked(path)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.nginx
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_digest_is_compared_with_that_of_the_checksum_file(
    nginx: Nginx, served: Path, tmp_path: Path, algorithm: str
) -> None:
    digest = hashlib.new(algorithm, DISK).hexdigest()
    sums = served.with_name(f"{served.name}.SUMS")
    sums.write_text(f"{'0' * 64}  other.img\n{digest} *{served.name}\n")
    puller = Puller(tmp_path, f"{nginx.url}/{served.name}").wanting(checksum_url=f"{nginx.url}/{sums.name}")
    assert puller.content() == DISK
    wrong = digest[::-1]
    sums.write_text(f"{wrong}  {served.name}\n")
    assert f"its {algorithm} is {digest}, and {wrong} is expected" in refusal(puller).why
    assert puller.left() == set()
    sums.unlink()
    assert "404" in refusal(puller).why


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_file_is_read_where_it_is(tmp_path: Path, prefix: str) -> None:
    source = tmp_path / "source.zst"
    source.write_bytes(PACK[Compression.ZSTD](DISK))
    puller = Puller(tmp_path, f"{prefix}{source}", Compression.AUTO)
    origin = puller.pull()
    assert puller.output.read_bytes() == DISK
    assert puller.left() == set()
    assert puller.pull(origin) is None
    os.utime(source)
    assert puller.pull(origin) is not None


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DISK)

    def watch(_count: int, _size: int | None) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    with pytest.raises(InfraError, match="changed while it was read"):
        Puller(tmp_path, str(source)).pull(watch=watch)


def test_a_wrong_digest_says_both(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DISK)
    puller = Puller(tmp_path, str(tmp_path / "source")).wanting(sha512="0" * 128)
    why = refusal(puller).why
    assert hashlib.sha512(DISK).hexdigest() in why
    assert "0" * 128 in why


@pytest.mark.nginx
@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD, Compression.XZ])
def test_a_disk_that_is_larger_than_it_may_be_ends_the_pull(
    nginx: Nginx, served: Path, tmp_path: Path, compression: Compression
) -> None:
    served.write_bytes(PACK[compression](bytes(40 * MIB)))
    puller = Puller(tmp_path, f"{nginx.url}/{served.name}", compression).wanting(max_size=32 * MIB)
    error = refusal(puller)
    assert str(32 * MIB) in error.why
    assert "`max_size`" in error.remedy
    assert puller.output.stat().st_size <= 32 * MIB
    assert puller.left() == set()
    assert len(puller.wanting(max_size=40 * MIB).content()) == 40 * MIB


@pytest.mark.nginx
def test_a_stream_that_wants_too_much_memory_is_kept_for_when_it_is_allowed(
    nginx: Nginx, served: Path, tmp_path: Path
) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=23, enable_ldm=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    served.write_bytes(stream.compress(DISK) + stream.flush())
    puller = Puller(tmp_path, f"{nginx.url}/{served.name}", Compression.ZSTD).wanting(decoder_memory=4 * MIB)
    error = refusal(puller)
    assert "takes 8 MiB of memory" in error.why
    assert "`decoder_memory`" in error.remedy
    assert puller.left() == {"tiny.part", "tiny.part.json"}
    assert puller.wanting(decoder_memory=8 * MIB).content() == DISK


@pytest.mark.nginx
@pytest.mark.parametrize("full", ["output", "part"])
def test_a_full_disk_is_told_as_such_and_nothing_is_kept(nginx: Nginx, served: Path, tmp_path: Path, full: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user or this container may not mount a small file system")
    try:
        puller = Puller(tmp_path, f"{nginx.url}/{served.name}")
        setattr(puller, full, small / "tiny.part")
        assert refusal(puller).cause is Cause.DISK_FULL
        assert not puller.part.exists()
        assert puller.left() == set()
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.nginx
def test_a_source_that_cannot_be_had_leaves_nothing(nginx: Nginx, tmp_path: Path) -> None:
    for source in (f"{nginx.url}/none", str(tmp_path / "none"), "ftp://host/image"):
        puller = Puller(tmp_path, source)
        assert source in refusal(puller).why
        assert puller.left() == set()


def test_a_range_whose_numbers_are_no_numbers_is_an_error(server: Server, tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if "Range" in request.headers:
            begin(request, {"Content-Range": f"bytes {'1' * 5000}-2/3", "ETag": '"one"'}, 206)
        else:
            begin(request, {"Content-Length": str(len(DISK)), "ETag": '"one"'})
            request.wfile.write(DISK[:MIB])

    assert "cannot go on" in refusal(Puller(tmp_path, server.route("/image", answer))).why


def chunked(server: Server, data: bytes, size: int, rest: float) -> str:
    """A source that comes in chunks, with a rest after each."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        begin(request, {"Transfer-Encoding": "chunked", "Connection": "close"})
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            server.released.wait(rest)
        request.wfile.write(b"0\r\n\r\n")

    return server.route("/chunks", answer)


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD, Compression.GZIP])
def test_chunks_that_trickle_are_a_stall(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: Compression
) -> None:
    monkeypatch.setattr(pipeline, "STALL", 0.5)
    url = chunked(server, PACK[compression](DISK[:800]), 16, 0.05)
    assert "too little came for 0.5 s" in refusal(Puller(tmp_path, url, compression)).why


def test_chunks_that_come_slowly_but_bring_enough_are_no_stall(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "STALL", 1.0)
    assert Puller(tmp_path, chunked(server, DISK, MIB, 0.3)).content() == DISK


def test_what_comes_after_the_end_of_a_pull_is_not_written(server: Server, tmp_path: Path) -> None:
    ended = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        begin(request, {"Transfer-Encoding": "chunked", "Connection": "close"})
        request.wfile.write(b"5\r\nfirst\r\n")
        assert ended.wait(10)
        request.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")

    url = server.route("/image", answer)
    with contextlib.closing(open_part(tmp_path / "tiny.part", url)) as part, ThreadPoolExecutor(1) as pool:
        intake = Intake(part.descriptor)
        running = pool.submit(Download(url, part, intake, {}, MIB).run)
        assert intake.read(0, 5) == b"first"
        intake.fail(Ended())
        ended.set()
        with pytest.raises(Ended):
            running.result(10)
        assert part.size == 5


_PULL_8_GIB = """\
import os, re, sys
from pathlib import Path
from solstice.images.pipeline import pull
from solstice.model import Compression, Image
name = Path(sys.argv[2])
image = Image("big", sys.argv[1], name, Compression.AUTO)
output = os.open(name, os.O_RDWR | os.O_CREAT)
pull(image, name.with_name("big.part"), output, lambda count, size: None)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.nginx
def test_an_image_of_8_gib_takes_64_mib_and_the_window_of_memory(nginx: Nginx, served: Path, tmp_path: Path) -> None:
    window, size = 8 * MIB, 8 << 30
    parameters = zstandard.ZstdCompressionParameters(window_log=23, enable_ldm=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with served.open("wb") as file:
        for number in range(size >> 24):
            noise = DISK[: 3 * MIB] if number % 8 == 0 else b""
            file.write(stream.compress(noise + bytes((16 * MIB) - len(noise))))
        file.write(stream.flush())
    target = tmp_path / "big.img"
    argv = [sys.executable, "-c", _PULL_8_GIB, f"{nginx.url}/{served.name}", str(target)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True)
    assert target.stat().st_size == size
    assert target.stat().st_blocks * 512 < size // 8
    assert int(done.stdout) << 10 < 64 * MIB + window, f"{int(done.stdout) >> 10} MiB"

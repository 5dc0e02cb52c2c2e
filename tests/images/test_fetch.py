import base64
import datetime
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from solstice.errors import Cause, InfraError
from solstice.images import fetch
from solstice.images.fetch import Broken, local, opened, small
from tests.images.conftest import Server, begin, serving
from tests.real.certificates import Authority

BODY = bytes(range(256)) * 4096
LATER = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)


def read(url: str) -> tuple[bytes, int | None]:
    with opened(url) as answer:
        data = b"".join(answer.chunks)
        fetch.check_end(url, len(data), answer.length)
        return data, answer.length


def refusal(source: str) -> InfraError:
    with pytest.raises(InfraError) as caught:
        read(source)
    assert caught.value.cause is Cause.IMAGE
    assert caught.value.remedy
    return caught.value


def test_http_gives_the_body_and_its_size(server: Server) -> None:
    assert read(server.serve("/image", BODY)) == (BODY, len(BODY))


def test_chunks_are_bounded(server: Server) -> None:
    with opened(server.serve("/image", BODY)) as answer:
        assert max(len(chunk) for chunk in answer.chunks) <= fetch.READ_SIZE


def test_a_redirect_is_followed(server: Server) -> None:
    server.serve("/image", BODY)
    url = server.route("/latest", lambda request: begin(request, {"Location": "/image", "Content-Length": "0"}, 302))
    assert read(url)[0] == BODY
    assert server.asked == ["/latest", "/image"]


def test_redirects_without_end_are_an_error(server: Server) -> None:
    url = server.route("/loop", lambda request: begin(request, {"Location": "/loop", "Content-Length": "0"}, 302))
    assert "too many redirects" in refusal(url).why


def test_an_encoded_body_is_not_decoded(server: Server) -> None:
    """An image named .gz is served by many servers as if the transfer were encoded."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        assert request.headers["Accept-Encoding"] == "identity"
        begin(request, {"Content-Length": str(len(BODY)), "Content-Encoding": "gzip"})
        request.wfile.write(BODY)

    assert read(server.route("/image", answer))[0] == BODY


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_another_status_is_an_error_that_names_it(server: Server, status: int) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, {"Content-Length": "4", "Retry-After": "3600"}, status)
        request.wfile.write(b"sorry"[:4])

    url = server.route("/image", answer)
    error = refusal(url)
    assert url in error.why
    assert f"answered {status} " in error.why
    assert isinstance(error, Broken) is (status >= 500)
    assert getattr(error, "after", 3600) == 3600


def test_a_body_that_is_cut_is_an_error(server: Server) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, {"Content-Length": str(len(BODY))})
        request.wfile.write(BODY[:-1])

    size = len(BODY)
    error = refusal(server.route("/cut", answer))
    assert f"connection ended after {size - 1} of {size} bytes" in error.why
    assert isinstance(error, Broken)


def test_a_chunked_body_has_no_size_and_is_an_error_when_cut(server: Server) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        begin(request, {"Transfer-Encoding": "chunked", "Connection": "close"})
        request.wfile.write(b"5\r\nhello\r\n" + (b"0\r\n\r\n" if request.path == "/whole" else b"9\r\nwor"))

    assert read(server.route("/whole", answer)) == (b"hello", None)
    assert "transfer failed" in refusal(server.route("/cut", answer)).why


def test_a_stall_ends_by_the_read_timeout(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "READ_TIMEOUT", 0.2)
    assert "nothing came for 0.2 s" in refusal(server.stall("/image", BODY[:1000], len(BODY))).why


def test_a_server_that_never_answers_ends_by_the_read_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "READ_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "nothing came for 0.2 s" in refusal(f"http://127.0.0.1:{silent.getsockname()[1]}/image").why


def test_a_refused_connection_is_said_in_the_system_s_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/image").why == f"http://127.0.0.1:{port}/image: Connection refused"


def test_a_server_that_speaks_no_tls_is_an_error(server: Server) -> None:
    assert "0x" not in refusal(server.serve("/image", BODY).replace("http:", "https:")).why


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 0),
        ("soon", 0, 0),
        ("Sun, 06 Nov 1994 08:49:37 +" + "9" * 40, 0, 0),
        ("", 0, 0),
        pytest.param(format_datetime(LATER), 1000, 3600, id="later"),
    ],
)
def test_when_to_come_again_is_heard(server: Server, said: str, least: float, most: float) -> None:
    url = server.route("/busy", lambda request: begin(request, {"Retry-After": said, "Content-Length": "0"}, 429))
    error = refusal(url)
    assert isinstance(error, Broken)
    assert least <= error.after <= most


def test_another_thread_can_end_a_transfer(server: Server) -> None:
    with opened(server.stall("/image", BODY[:1000], len(BODY))) as answer:
        threading.Timer(0.1, answer.abort).start()
        assert len(b"".join(answer.chunks)) <= 1000


def test_a_password_is_sent_and_only_to_the_server_it_is_for(server: Server) -> None:
    seen: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers["Authorization"])
        target = {"/here": "/there", "/there": f"{other.url}/away"}.get(request.path)
        begin(request, {"Content-Length": "0", **({"Location": target} if target else {})}, 302 if target else 200)

    with serving() as other:
        other.route("/away", answer)
        server.route("/there", answer)
        read(server.route("/here", answer).replace("//", "//me:a%20b%C3%A9@"))
    login = "Basic " + base64.b64encode("me:a bé".encode()).decode()
    assert seen == [login, login, None]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_a_proxy_is_asked_unless_the_host_is_excepted(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    logins: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        logins.append(request.headers["Proxy-Authorization"])
        begin(request, {"Content-Length": "5"})
        request.wfile.write(b"proxy")

    server.route("http://images.invalid/image", answer)
    monkeypatch.setenv(name, server.url.replace("//", "//me:secret@"))
    assert read("http://images.invalid/image")[0] == b"proxy"
    assert logins == ["Basic " + base64.b64encode(b"me:secret").decode()]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert read(server.serve("/image", BODY))[0] == BODY


def test_a_small_file_is_read_whole_from_anywhere(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sums").write_bytes(BODY)
    for source in (server.serve("/sums", BODY), str(tmp_path / "sums"), (tmp_path / "sums").as_uri()):
        assert small(source, len(BODY)) == BODY
        with pytest.raises(InfraError, match=f"it has more than {len(BODY) - 1} bytes"):
            small(source, len(BODY) - 1)


def test_a_small_file_that_comes_in_drops_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "READ_TIMEOUT", 0.5)

    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, {"Content-Length": "1000"})
        for _ in range(1000):
            request.wfile.write(b"x")
            server.released.wait(0.05)

    url = server.route("/sums", answer)
    began = time.monotonic()
    with pytest.raises(InfraError, match="the connection ended"):
        small(url, 1000)
    assert time.monotonic() - began < 5


@pytest.fixture
def https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a certificate that this process trusts."""
    authority = Authority(tmp_path)
    made = authority.certificate("server", "subjectAltName=IP:127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    with serving(context) as secure:
        yield secure


def test_https_is_verified_and_read(https: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = https.serve("/image", BODY)
    assert read(url)[0] == BODY
    assert "localhost" in refusal(url.replace("127.0.0.1", "localhost")).why.split(": ", 1)[1]
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate verify failed" in refusal(url).why.lower().replace("_", " ")


def test_a_redirect_from_https_to_http_is_refused(https: Server, server: Server) -> None:
    target = server.serve("/image", BODY)
    url = https.route("/latest", lambda request: begin(request, {"Location": target, "Content-Length": "0"}, 302))
    assert f"redirects from https to {target}" in refusal(url).why
    assert server.asked == []


def test_a_password_in_the_source_is_not_shown(server: Server) -> None:
    why = refusal(server.url.replace("//", "//user:hunter2@") + "/none").why
    assert "hunter2" not in why
    assert "404" in why


def test_paths_and_file_urls_are_of_this_host(tmp_path: Path) -> None:
    path = tmp_path / "an image.img"
    for source in (str(path), f"file://{path}", f"file://localhost{path}", path.as_uri(), f"FILE://{path}"):
        assert local(source) == path
    assert local("HTTPS://host/image") is None


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, why in ((tmp_path / "fifo", "not a regular file"), (tmp_path, "not a regular file")):
        with pytest.raises(InfraError, match=why):
            fetch.open_local(path)
    with pytest.raises(InfraError, match="no such file"):
        fetch.open_local(tmp_path / "none")


@pytest.mark.parametrize("source", ["ftp://host/image", "s3://bucket/image", "file://host/image"])
def test_a_source_of_another_kind_is_refused(source: str) -> None:
    with pytest.raises(InfraError, match=source) as caught:
        local(source)
    assert caught.value.remedy


@pytest.mark.parametrize("source", ["http://", "http://[::1", "http://host:port/image"])
def test_an_address_that_is_none_is_refused_for_good(source: str) -> None:
    error = refusal(source)
    assert source in error.why
    assert not isinstance(error, Broken)


@pytest.mark.parametrize(
    ("status", "headers"),
    [(302, {"Location": "http://[bad/x", "Content-Length": "0"}), (200, {"Content-Length": "9" * 5000})],
)
def test_an_answer_that_makes_no_sense_is_an_error(server: Server, status: int, headers: dict[str, str]) -> None:
    error = refusal(server.route("/image", lambda request: begin(request, headers, status)))
    assert "makes no sense" in error.why
    assert not isinstance(error, Broken)


@pytest.mark.parametrize("line", [b"0" * (1 << 20), b"-1\r\n", b" -1\r\n", b"5\r\nhello\r\n-1\r\n"])
def test_a_chunk_whose_size_makes_no_sense_is_an_error_as_soon_as_that_is_known(
    server: Server, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    """What follows is not waited for: it could fill the memory."""
    monkeypatch.setattr(fetch, "READ_TIMEOUT", 5.0)

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        begin(request, {"Transfer-Encoding": "chunked", "Connection": "close"})
        request.wfile.write(line)
        server.released.wait()

    error = refusal(server.route("/image", answer))
    assert "a chunk whose size makes no sense" in error.why
    assert isinstance(error, Broken)


@pytest.mark.parametrize("proxy", ["http://user:SECRET@proxy:99999", "http://user:SECRET@proxy%zz/"])
def test_a_password_in_the_address_of_a_proxy_is_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    error = refusal(server.serve("/image", BODY))
    assert "that of the proxy, is not a valid URL" in error.why
    assert "SECRET" not in str(error)


@pytest.mark.parametrize("source", ["http://user:SECRET@host%zz/", "http://user:SECRET@host:99999/"])
def test_a_password_in_an_address_that_is_none_is_not_shown(source: str) -> None:
    assert "SECRET" not in str(refusal(source))

import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from solstice.errors import Cause, InfraError
from solstice.images import fetch
from solstice.images.fetch import open_source
from tests.images.conftest import Server, begin, serving

BODY = bytes(range(256)) * 4096


def read(source: str) -> tuple[bytes, int | None]:
    with open_source(source) as opened:
        return b"".join(opened.chunks), opened.size


def refusal(source: str) -> InfraError:
    with pytest.raises(InfraError) as caught:
        read(source)
    assert caught.value.cause is Cause.IMAGE
    assert caught.value.remedy
    return caught.value


def test_http_gives_the_body_and_its_size(server: Server) -> None:
    assert read(server.serve("/image", BODY)) == (BODY, len(BODY))


def test_chunks_are_bounded(server: Server) -> None:
    with open_source(server.serve("/image", BODY)) as opened:
        assert max(len(chunk) for chunk in opened.chunks) <= fetch.READ_SIZE


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


def test_a_body_that_is_cut_is_an_error(server: Server) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        begin(request, {"Content-Length": str(len(BODY))})
        request.wfile.write(BODY[:-1])

    size = len(BODY)
    assert f"connection ended after {size - 1} of {size} bytes" in refusal(server.route("/cut", answer)).why


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


@pytest.fixture
def https(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a certificate that this process trusts; its one page redirects to `server`'s /image."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*argv, *subject], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
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


def test_a_password_in_the_source_is_not_shown(server: Server) -> None:
    why = refusal(server.url.replace("//", "//user:hunter2@") + "/none").why
    assert "hunter2" not in why
    assert "404" in why


def test_paths_and_file_urls_are_read(tmp_path: Path) -> None:
    path = tmp_path / "an image.img"
    path.write_bytes(BODY)
    for source in (str(path), f"file://{path}", f"file://localhost{path}", path.as_uri()):
        assert read(source) == (BODY, len(BODY))


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refusal(str(tmp_path / "fifo")).why
    assert "not a regular file" in refusal(tmp_path.as_uri()).why
    assert "no such file" in refusal(str(tmp_path / "none")).why


@pytest.mark.parametrize(
    "source", ["ftp://host/image", "s3://bucket/image", "file://host/image", "http://", "http://[::1"]
)
def test_a_source_that_cannot_be_fetched_is_refused(source: str) -> None:
    assert source in refusal(source).why

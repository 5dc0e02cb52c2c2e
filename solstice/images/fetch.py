"""Where an image comes from: https, http, file URLs and plain paths, as one stream of bytes.

`obtain` calls it.  Whatever ends early, stalls or answers with anything but the file is an `InfraError` in the
operator's words; a stream that ends without one is whole.  Retrying is the child's business, not the connection's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, ReadTimeoutError
from urllib3.util.ssl_ import create_urllib3_context

from solstice import __version__
from solstice.errors import Cause, InfraError
from solstice.protocol.urls import mask_url

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 60.0  # between two pieces: a stalled transfer ends after it
READ_SIZE = 64 << 10  # small, so that a slow line reports progress too

_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes as they come; `size` is how many there will be, None where the server does not say."""

    chunks: Iterator[bytes]
    size: int | None


def open_source(source: str) -> contextlib.AbstractContextManager[Source]:
    """Open `source` for one reading; leaving the context closes it.

    Raises `InfraError`, when it is entered as well as from `chunks`.
    """
    scheme, separator, rest = source.partition("://")
    if not separator:
        return _file(Path(source))
    if scheme.lower() in ("http", "https"):
        return _http(source)
    if scheme.lower() != "file":
        raise _error(source, f"{scheme} is not supported", "use an https, http or file URL, or a path")
    host, _, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise _error(source, "a file URL cannot name another host", "write it as file:///path")
    return _file(Path("/", unquote(path)))


@contextlib.contextmanager
def _file(path: Path) -> Iterator[Source]:
    # Looked at before it is opened: opening a FIFO would wait for a writer for ever.
    if not path.is_file():
        raise _error(str(path), "it is not a regular file" if path.exists() else "there is no such file")
    with path.open("rb") as file:
        yield Source(iter(lambda: file.read(READ_SIZE), b""), path.stat().st_size)


@contextlib.contextmanager
def _http(url: str) -> Iterator[Source]:
    retries = urllib3.Retry(_REDIRECTS, connect=0, read=0, other=0, respect_retry_after_header=False)
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)
    # Identity: an image must come as it was stored, and Content-Length must speak of the bytes that are counted here.
    headers = {"User-Agent": f"solstice/{__version__}", "Accept-Encoding": "identity"}
    # The system's trust store, said explicitly: Debian's urllib3 and upstream's have different defaults.
    # The context is urllib3's own kind: 1.26 checks the host's name itself, 2 leaves that to OpenSSL.
    tls = create_urllib3_context()
    tls.load_default_certs()
    with (
        urllib3.PoolManager(retries=retries, timeout=timeout, headers=headers, ssl_context=tls) as pool,
        contextlib.ExitStack() as stack,
    ):
        with _words(url):
            response: Any = pool.request("GET", url, preload_content=False, enforce_content_length=False)
        stack.callback(response.close)
        _check_answer(url, response)
        length = response.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else None
        yield Source(_body(url, response, size), size)


def _check_answer(url: str, response: Any) -> None:
    insecure = [hop.redirect_location for hop in response.retries.history if _is_plain_http(hop.redirect_location)]
    if insecure and not _is_plain_http(url):
        raise _error(url, f"the server redirects from https to {insecure[0]}", "use a source that stays with https")
    if response.status != 200:
        raise _error(url, f"the server answered {response.status} {response.reason or ''}".rstrip())


def _is_plain_http(url: str | None) -> bool:
    return (url or "").lower().startswith("http:")


def _body(url: str, response: Any, size: int | None) -> Iterator[bytes]:
    count = 0
    with _words(url):
        for chunk in response.stream(READ_SIZE, decode_content=False):
            count += len(chunk)
            yield chunk
    # Counted here, because the versions of urllib3 differ in what an early end is to them.
    if size is not None and count != size:
        raise _error(url, f"the connection ended after {count} of {size} bytes")


@contextlib.contextmanager
def _words(url: str) -> Iterator[None]:
    """Turns what urllib3 raises into what an operator can read."""
    try:
        yield
    except HTTPError as error:
        raise _error(url, _say(error)) from None


def _say(error: BaseException) -> str:
    if isinstance(error, MaxRetryError) and error.reason:
        return _say(error.reason)
    # urllib3's own text begins with the address of an object; the system's says it better where there is one.
    origin = error.__cause__ or error.__context__
    if isinstance(origin, OSError) and origin.strerror:
        return origin.strerror
    if isinstance(error, ConnectTimeoutError):
        return f"no connection within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, ReadTimeoutError):
        return f"nothing came for {READ_TIMEOUT:g} s"
    return f"the transfer failed: {error.args[0] if error.args else error}"


def _error(source: str, why: str, remedy: str = "") -> InfraError:
    return InfraError(Cause.IMAGE, f"{mask_url(source)}: {why}", remedy)

"""An authority of the tests' own, and certificates from it, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files."""

    cert: Path
    key: Path


class Authority:
    """Makes everything in `folder`, which the caller removes.  `ca` is its own certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = name
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("req", "-x509", *_KEY, "-days", "2", *_files(self._key, self.ca), "-subj", f"/CN={name} of the tests")

    def certificate(self, name: str, extension: str) -> Certificate:
        """A certificate with one X.509 extension, such as `subjectAltName=DNS:localhost`."""
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        extensions.write_text(extension)
        _openssl("req", "-new", *_KEY, *_files(made.key, request), "-subj", f"/CN={name}")
        _openssl(
            "x509", "-req", "-in", str(request), "-out", str(made.cert), "-days", "2", "-extfile", str(extensions),
            "-CA", str(self.ca), "-CAkey", str(self._key), "-CAcreateserial",
        )  # fmt: skip
        return made


def _files(key: Path, out: Path) -> list[str]:
    return ["-keyout", str(key), "-out", str(out)]


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)

from pathlib import Path

import pytest

from solstice.errors import InfraError
from solstice.images.checksum import MAX_FILE, find, wanted
from solstice.model import Image

A, B = "a1" * 32, "B2" * 32
LONG = "c3" * 64

DEBIAN = f"""\
{LONG}  debian-12-generic-amd64.qcow2
{"d4" * 64}  debian-12-generic-amd64.tar.xz
"""
UBUNTU = f"""\
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA512

{A} *jammy-server-cloudimg-amd64.img
{B} *jammy-server-cloudimg-amd64.img.manifest
-----BEGIN PGP SIGNATURE-----
"""
FEDORA = f"""\
# Fedora-Cloud.qcow2: 400 bytes
SHA256 (Fedora-Cloud.qcow2) = {A}
SHA512(other.img)= {LONG}
"""


@pytest.mark.parametrize(
    ("text", "name", "digest"),
    [
        (DEBIAN, "debian-12-generic-amd64.qcow2", LONG),
        (UBUNTU, "jammy-server-cloudimg-amd64.img", A),
        (UBUNTU, "jammy-server-cloudimg-amd64.img.manifest", B.lower()),
        (FEDORA, "Fedora-Cloud.qcow2", A),
        (FEDORA, "other.img", LONG),
        (f"{A}  ./images/a disk.img\r\n", "a disk.img", A),
        (f"{B}\n", "anything.img", B.lower()),
        (f"{A}\n{B}\n", "anything.img", ""),
        (DEBIAN, "generic-amd64.qcow2", ""),
        (f"{A[1:]}  short.img", "short.img", ""),
        ("", "a.img", ""),
        ("\0\xff", "a.img", ""),
    ],
)
def test_a_digest_is_found_by_the_file_s_name(text: str, name: str, digest: str) -> None:
    assert find(text, name) == digest


def image(tmp_path: Path, text: str, source: str = "https://host/a%20dir/a%20disk.img?x=/y", **more: str) -> Image:
    (tmp_path / "SUMS").write_text(text)
    return Image("tiny", source, tmp_path / "tiny.img", checksum_url=str(tmp_path / "SUMS"), **more)  # type: ignore[arg-type]


def test_nothing_is_wanted_of_an_image_without_digests(tmp_path: Path) -> None:
    assert wanted(Image("tiny", "/a", tmp_path)) == {}


def test_the_name_is_that_of_the_source(tmp_path: Path) -> None:
    assert wanted(image(tmp_path, f"{A}  a disk.img\n{B}  other")) == {"sha256": A}
    assert wanted(image(tmp_path, f"{LONG}  a%20disk.img\n{B}  other", source="/dir/a%20disk.img")) == {"sha512": LONG}


def test_digests_of_the_map_and_of_the_file_are_all_wanted(tmp_path: Path) -> None:
    both = image(tmp_path, f"{LONG}  a disk.img", sha256=B)
    assert wanted(both) == {"sha256": B.lower(), "sha512": LONG}
    assert wanted(image(tmp_path, f"{A}  a disk.img", sha256=B)) == {"sha256": B.lower()}


@pytest.mark.parametrize(
    "text", [f"{A}  other.img\n{B}  more.img\n", "<!DOCTYPE html>", f"{A}  a disk.img\n" * MAX_FILE]
)
def test_a_file_that_does_not_help_is_an_error_with_the_remedy(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        InfraError, match=r"SUMS: it has (no SHA-256 or SHA-512 digest of a disk.img|more than)"
    ) as caught:
        wanted(image(tmp_path, text[: 2 * MAX_FILE]))
    assert caught.value.remedy


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    asked = image(tmp_path, "")
    (tmp_path / "SUMS").unlink()
    with pytest.raises(InfraError, match="SUMS: there is no such file"):
        wanted(asked)

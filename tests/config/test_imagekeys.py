"""What an entry of the image map can say of checks, limits and refreshing, and what of it contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from solstice.config.imagemap import load
from solstice.errors import ConfigError
from solstice.model import Compression, DiskFormat, Image

HEAD = """\
default_label: debian
images:
  debian:
    source: https://images.example/debian.raw.xz
    local_path: debian.img
"""
SHA256 = "Aa" * 32
SHA512 = "0f" * 64


def entry(tmp_path: Path, *lines: str) -> Image:
    path = tmp_path / "map.yaml"
    path.write_text(HEAD + "".join(f"    {line}\n" for line in lines), "utf-8")
    return load(path).images["debian"]


def test_every_key_has_its_value(tmp_path: Path) -> None:
    image = entry(
        tmp_path,
        "checksum_url: https://images.example/SHA256SUMS",
        "decompress: xz",
        "max_size: 40GiB",
        "decoder_memory: 256MiB",
        "refresh: 7d",
        "boot_test: true",
        "prepare: qcow2",
    )
    assert image.checksum_url == "https://images.example/SHA256SUMS"
    assert image.decompress is Compression.XZ
    assert (image.max_size, image.decoder_memory) == (40 << 30, 256 << 20)
    assert (image.refresh, image.boot_test, image.prepare) == (7 * 86400.0, True, DiskFormat.QCOW2)


def test_what_is_not_said_is_the_model_s_default(tmp_path: Path) -> None:
    image, usual = entry(tmp_path), Image("debian", "", Path())
    for name in ("sha256", "sha512", "checksum_url", "decompress", "max_size", "decoder_memory", "refresh"):
        assert getattr(image, name) == getattr(usual, name)
    assert (image.boot_test, image.prepare) == (False, None)


def test_digests_are_kept_in_small_letters(tmp_path: Path) -> None:
    image = entry(tmp_path, f"sha256: {SHA256}", f"sha512: {SHA512}")
    assert (image.sha256, image.sha512) == (SHA256.lower(), SHA512)


def test_a_checksum_file_can_lie_beside_the_map(tmp_path: Path) -> None:
    assert entry(tmp_path, "checksum_url: SHA256SUMS").checksum_url == str(tmp_path / "SHA256SUMS")


@pytest.mark.parametrize("kind", list(Compression))
def test_every_kind_of_compression_can_be_named(tmp_path: Path, kind: Compression) -> None:
    assert entry(tmp_path, f"decompress: {kind}").decompress is kind


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("sha256: abc", "sha256", "not 64 hexadecimal digits"),
        (f"sha512: {SHA256}", "sha512", "what sha512sum prints"),
        ("sha256: true", "sha256", "is true or false, not text"),
        ("checksum_url: ftp://images.example/SHA256SUMS", "checksum_url", "https, http, file"),
        ("max_size: 0", "max_size", "such as 256GiB"),
        ("max_size: lots", "max_size", "such as 256GiB"),
        ("decoder_memory: 8GiB", "decoder_memory", "such as 128MiB"),
        ("refresh: 7", "refresh", "such as 30d"),
        ("refresh: 30s", "refresh", "from 1min to 366d"),
        ("refresh: 0", "refresh", "leave it out for never"),
        ("refresh: 400d", "refresh", "from 1min to 366d"),
        ("boot_test: 'yes'", "boot_test", "is text, not true or false"),
        ("prepare: vmdk", "prepare", "one of raw, qcow2"),
    ],
)
def test_a_wrong_value_is_refused_with_line_key_and_remedy(tmp_path: Path, line: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        entry(tmp_path, line)
    assert caught.value.where == f"{tmp_path}/map.yaml:6"
    assert caught.value.key == f"images.debian.{key}"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("lines", "key", "words"),
    [
        ((f"sha256: {SHA256}", "checksum_url: SUMS"), "checksum_url", "stands beside sha256"),
        ((f"sha512: {SHA512}", "checksum_url: SUMS"), "checksum_url", "stands beside sha512"),
        ((f"sha256: {SHA256}", "refresh: 7d"), "refresh", "admits one version"),
        ((f"sha512: {SHA512}", "refresh: 7d"), "refresh", "give checksum_url in the place of sha512"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    tmp_path: Path, lines: tuple[str, ...], key: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        entry(tmp_path, *lines)
    assert caught.value.where == f"{tmp_path}/map.yaml:7"
    assert caught.value.key == f"images.debian.{key}"

"""The image map: what labels resolve to, and that every mistake is refused with file, line, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from solstice.config.imagemap import ImageMap, load
from solstice.errors import Cause, ConfigError, RequestError, UsageError
from solstice.model import Compression, Resources, SeedBus

GOOD = """\
default_label: latest
aliases:
  latest: stable
  stable: debian
sizes:
  small: {cpus: 1, memory: 512MiB}
  big: {cpus: 8, memory: 2GiB, disk: 20GiB}
images:
  debian:
    source: https://images.example/debian.qcow2
    local_path: debian.qcow2
    resources: {cpus: 2, memory: 1GiB, disk: 10GiB}
  illumos:
    source: ../illumos.img.zst
    local_path: /var/lib/images/illumos.img
    decompress: zstd
    nocloud: false
    seed_bus: sata
    size: big
limits:
  max_concurrency: 3
  capacity_map: {debian: 2, latest: 1, elsewhere: 7}
  pending_limit: 50
  max_booting: '2'
  cpu_overcommit: 1.5
  memory_reserve: 512MiB
  disk_floor: 0
"""


def _load(tmp_path: Path, text: str) -> ImageMap:
    path = tmp_path / "map.yaml"
    path.write_text(text, "utf-8")
    return load(path)


def test_labels_lead_to_images(tmp_path: Path) -> None:
    images = _load(tmp_path, GOOD)
    assert images.labels() == ["debian", "illumos", "latest", "stable"]
    for label in ("", "latest", "stable", "debian"):
        assert images.resolve(label) is images.images["debian"]
    assert images.resolve("windows") is None


def test_keys_and_defaults_of_an_image(tmp_path: Path) -> None:
    images = _load(tmp_path, GOOD).images
    debian, illumos = images["debian"], images["illumos"]
    assert debian.local_path == tmp_path / "debian.qcow2"
    assert (debian.decompress, debian.nocloud, debian.seed_bus) == (Compression.NONE, True, SeedBus.VIRTIO)
    assert illumos.source == str(tmp_path.parent / "illumos.img.zst")
    assert (illumos.decompress, illumos.nocloud, illumos.seed_bus) == (Compression.ZSTD, False, SeedBus.SATA)
    assert illumos.resources == Resources(8, 2048, 20)


def test_size_of_the_request_beats_that_of_the_image(tmp_path: Path) -> None:
    images = _load(tmp_path, GOOD)
    debian = images.images["debian"]
    assert images.resources("", debian) == Resources(2, 1024, 10)
    assert images.resources("small", debian) == Resources(1, 512, 10)
    assert images.resources("big", debian) == Resources(8, 2048, 20)
    with pytest.raises(RequestError, match="did you mean small") as caught:
        images.resources("smal", debian)
    assert caught.value.cause is Cause.UNSCHEDULABLE


def test_limits_are_values_of_their_settings(tmp_path: Path) -> None:
    assert _load(tmp_path, GOOD).limits == {
        "max_concurrency": 3,
        "capacity_map": {"debian": 2, "latest": 1, "elsewhere": 7},
        "pending_limit": 50,
        "max_booting": 2,
        "cpu_overcommit": 1.5,
        "memory_reserve": 512,
        "disk_floor": 0,
    }


def test_limits_that_are_not_there_are_not_limits(tmp_path: Path) -> None:
    head, tail = GOOD.split("limits:\n")
    assert tail
    assert _load(tmp_path, head).limits == {}
    assert _load(tmp_path, head + "limits: {capacity_map: {}}\n").limits == {"capacity_map": {}}


def test_only_default_and_images_are_needed(tmp_path: Path) -> None:
    images = _load(tmp_path, "default_label: a\nimages:\n  a: {source: file:///a.img, local_path: a.img}\n")
    assert images.labels() == ["a"]
    assert images.images["a"].resources == Resources()


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ("sizes:", "size:", 5, "size", "did you mean sizes"),
        ("    decompress: zstd", "    decompres: zstd", 16, "images.illumos.decompres", "did you mean decompress"),
        ("{cpus: 1,", "{cpu: 1,", 6, "sizes.small.cpu", "did you mean cpus"),
        ("nocloud: false", "nocloud: 'no'", 17, "images.illumos.nocloud", "is text, not true or false"),
        ("cpus: 8", "cpus: true", 7, "sizes.big.cpus", "is true or false, not a whole number"),
        ("cpus: 8", "cpus: 0", 7, "sizes.big.cpus", "from 1 to 1024"),
        ("memory: 2GiB", "memory: 2048", 7, "sizes.big.memory", "such as 2GiB"),
        ("memory: 2GiB", "memory: 2GB", 7, "sizes.big.memory", "as 2GiB"),
        ("memory: 2GiB", "memory: 99999TiB", 7, "sizes.big.memory", "not a possible amount"),
        ("disk: 20GiB", "disk: 20000MiB", 7, "sizes.big.disk", "whole number of GiB"),
        (", memory: 512MiB", "", 6, "sizes.small", "the key memory is missing"),
        ("decompress: zstd", "decompress: rar", 16, "images.illumos.decompress", "one of none, auto, zstd"),
        ("seed_bus: sata", "seed_bus: ide", 18, "images.illumos.seed_bus", "one of virtio, sata"),
        ("max_concurrency: 3", "max_concurency: 3", 21, "limits.max_concurency", "did you mean max_concurrency"),
        ("max_concurrency: 3", "backend: noop", 21, "limits.backend", "unknown key"),
        ("max_concurrency: 3", "max_concurrency: 0", 21, "limits.max_concurrency", "number from 1 to 65535"),
        ("max_concurrency: 3", "max_concurrency: 3.0", 21, "limits.max_concurrency", "'3.0' is not a whole number"),
        ("max_concurrency: 3", "max_concurrency: true", 21, "limits.max_concurrency", "is true or false, not text or"),
        ("max_concurrency: 3", "max_concurrency: [3]", 21, "limits.max_concurrency", "such as 2"),
        ("max_concurrency: 3", "max_concurrency:", 21, "limits.max_concurrency", "is empty"),
        ("{debian: 2,", "{debian: 0,", 22, "limits.capacity_map.debian", "from 1 to 99999"),
        ("{debian: 2,", "{'debian=1,x': 2,", 22, "limits.capacity_map.debian=1,x", "cannot be a name"),
        ("{debian: 2, latest: 1, elsewhere: 7}", "debian=2", 22, "limits.capacity_map", "not a mapping"),
        ("pending_limit: 50", "pending_limit: 10001", 23, "limits.pending_limit", "from 1 to 10000"),
        ("max_booting: '2'", "max_booting: ''", 24, "limits.max_booting", "whole number from 1"),
        ("cpu_overcommit: 1.5", "cpu_overcommit: .inf", 25, "limits.cpu_overcommit", "from more than 0 to 64"),
        ("memory_reserve: 512MiB", "memory_reserve: 512", 26, "limits.memory_reserve", "such as 1GiB"),
        ("disk_floor: 0", "disk_floor: 1.5GiB", 27, "limits.disk_floor", "such as 2GiB"),
        ("size: big", "size: bigg", 19, "images.illumos.size", "did you mean big"),
        ("size: big", "size: big\n    resources: {cpus: 1, memory: 1GiB}", 19, "images.illumos.size", "keep one"),
        ("source: ../illumos.img.zst", "source: ''", 14, "images.illumos.source", "empty"),
        ("source: https", "source: ftp", 10, "images.debian.source", "https, http, file"),
        ("//images.example/", "//:x/", 10, "images.debian.source", "https, http, file"),
        ("    local_path: debian.qcow2\n", "", 9, "images.debian", "the key local_path is missing"),
        ("/var/lib/images/illumos.img", "debian.qcow2", 15, "images.illumos.local_path", "local_path of debian"),
        ("stable: debian", "stable: debain", 4, "aliases.stable", "did you mean debian"),
        ("stable: debian", "stable: latest", 3, "aliases.latest", "latest → stable → latest"),
        ("latest: stable", "illumos: stable", 3, "aliases.illumos", "name of an image"),
        ("latest: stable", "latest: [stable]", 3, "aliases.latest", "is a list, not text"),
        ("latest: stable", "-latest: stable", 3, "aliases.-latest", "cannot be a name"),
        ("default_label: latest", "default_label: newest", 1, "default_label", "no image and no alias"),
        ("default_label: latest\n", "", 1, "", "the key default_label is missing"),
        ("  illumos:\n", "  illumos:\n  other:\n", 13, "images.illumos", "is empty, not a mapping"),
    ],
)
def test_mistake_is_refused_with_file_line_key_and_remedy(
    tmp_path: Path, old: str, new: str, line: int, key: str, words: str
) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, GOOD.replace(old, new))
    assert caught.value.where == f"{tmp_path}/map.yaml:{line}"
    assert caught.value.key == key
    assert words in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["[]", "text", "default_label: a\nimages: {}\n", "default_label: a\nimages: []\n"])
def test_map_without_images_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        _load(tmp_path, text)


def test_missing_file_is_the_operators_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path / "none.yaml")

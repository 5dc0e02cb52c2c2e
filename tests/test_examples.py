"""Every YAML file under examples/ is one that Solstice loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from solstice.config import imagemap, jobfile, positions, settings
from solstice.model import Compression, Resources

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in (".yaml", ".yml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_example_loads(path: Path) -> None:
    value = positions.read(path).value
    if "images" in value:
        images = imagemap.load(path)
        assert images.resolve("") is not None
    else:
        assert jobfile.from_yaml(path).steps


def test_shipped_map_has_the_published_defaults() -> None:
    images = imagemap.load(EXAMPLES / "orchestrator-image-map.yaml")
    assert images.default_label == "illumos-latest"
    assert images.aliases == {"illumos-latest": "openindiana-hipster"}
    assert images.sizes == {
        "small": Resources(1, 1024),
        "medium": Resources(2, 2048),
        "large": Resources(4, 4096),
    }
    illumos = images.images["openindiana-hipster"]
    assert illumos.source == "https://dlc.openindiana.org/isos/hipster/20250402/OI-hipster-cloudimage.img.zstd"
    assert (illumos.decompress, illumos.nocloud) == (Compression.ZSTD, True)
    assert {"debian-12", "debian-13", "ubuntu-22.04", "ubuntu-24.04"} < set(images.images)
    assert {image.local_path.parent for image in images.images.values()} == {Path("/var/lib/solstice/images")}


def test_limits_that_the_shipped_map_shows_are_the_defaults(tmp_path: Path) -> None:
    text = (EXAMPLES / "orchestrator-image-map.yaml").read_text("utf-8")
    start = text.index("# limits:\n")
    shown = text[start : text.index("\n\n", start)]
    path = tmp_path / "map.yaml"
    path.write_text(text.replace(shown, "\n".join(line.removeprefix("# ") for line in shown.splitlines())))
    limits = imagemap.load(path).limits
    assert len(limits) == 7
    assert limits == {name: getattr(settings.load({}, {}), name) for name in limits}


def test_example_of_a_job_shows_what_steers_it() -> None:
    request = jobfile.from_yaml(EXAMPLES / "job.yaml")
    assert (request.priority, request.concurrency_group, request.cancel_in_progress) == (6, "example", True)

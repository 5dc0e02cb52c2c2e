"""Configuration: how the image map's limits rank among the settings, and what a second reading brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from solstice.config.configuration import Configuration, read
from solstice.errors import ConfigError, UsageError

IMAGES = "default_label: a\nimages:\n  a: {source: a.img, local_path: a.img}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "map.yaml"


def _read(path: Path, limits: str, flags: dict[str, str | None] | None = None, **environ: str) -> Configuration:
    path.write_text(f"{IMAGES}limits: {limits}\n")
    return read({"config": str(path)} | (flags or {}), environ)


def test_flags_beat_environment_beats_limits_beat_defaults(path: Path) -> None:
    limits = "{max_concurrency: 5, pending_limit: 6, memory_reserve: 7MiB}"
    settings = _read(path, limits, {"max_concurrency": "1"}, MAX_CONCURRENCY="2", PENDING_LIMIT="3").settings
    assert (settings.max_concurrency, settings.pending_limit, settings.memory_reserve) == (1, 3, 7)
    assert settings.max_booting == 4


def test_the_map_is_found_by_flag_or_variable(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(IMAGES + "limits: {max_booting: 9}\n")
    assert _read(path, "{}", ORCH_CONFIG=str(other)).settings.max_booting == 4
    assert read({}, {"ORCH_CONFIG": str(other)}).settings.max_booting == 9


def test_the_map_and_its_settings_come_together(path: Path) -> None:
    configuration = _read(path, "{capacity_map: {a: 3}}")
    assert configuration.settings.config == path
    assert configuration.settings.capacity_map == {"a": 3}
    assert configuration.image_map.labels() == ["a"]


def test_prefetch_follows_the_maps_concurrency_unless_it_is_set(path: Path) -> None:
    assert _read(path, "{max_concurrency: 8}").settings.amqp_prefetch == 8
    assert _read(path, "{max_concurrency: 8}", AMQP_PREFETCH="2").settings.amqp_prefetch == 2
    assert _read(path, "{max_concurrency: 8}", MAX_CONCURRENCY="3").settings.amqp_prefetch == 3


def test_a_changed_map_changes_the_limits(path: Path) -> None:
    assert _read(path, "{max_concurrency: 8}").settings.max_concurrency == 8
    assert _read(path, "{max_concurrency: 9}").settings.max_concurrency == 9


def test_directories_are_those_of_the_user_that_is_named(path: Path) -> None:
    path.write_text(IMAGES)
    assert read({"config": str(path)}, {}, root=True).settings.state_dir == Path("/var/lib/solstice")
    settings = read({"config": str(path)}, {"HOME": "/home/u"}, root=False).settings
    assert settings.state_dir == Path("/home/u/.local/state/solstice")


def test_a_wrong_limit_is_refused_even_where_a_flag_wins(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _read(path, "{max_booting: none}", {"max_booting": "1"})
    assert (caught.value.where, caught.value.key) == (f"{path}:4", "limits.max_booting")


def test_a_wrong_variable_is_refused_in_its_name(path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        _read(path, "{max_booting: 2}", MAX_BOOTING="many")
    assert caught.value.what == "MAX_BOOTING"

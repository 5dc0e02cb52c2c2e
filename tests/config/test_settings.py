"""Settings: where a value comes from, which are refused, and in whose name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solstice.config.parsers import UNITS, Bad
from solstice.config.settings import SETTINGS, Setting, load
from solstice.errors import UsageError
from solstice.model import Backend, DomainType

ISSUE = (
    "ORCH_CONFIG MAX_CONCURRENCY CAPACITY_MAP PENDING_LIMIT MAX_BOOTING CPU_OVERCOMMIT MEMORY_RESERVE DISK_FLOOR "
    "AMQP_URL AMQP_EXCHANGE AMQP_QUEUE AMQP_ROUTING_KEY AMQP_PREFETCH AMQP_CA_FILE AMQP_CERT_FILE AMQP_KEY_FILE "
    "LIBVIRT_URI LIBVIRT_NETWORK LIBVIRT_DOMAIN_TYPE SOLSTICE_BACKEND SOLSTICE_STATE_DIR SOLSTICE_RUN_DIR DATABASE_URL "
    "VM_SHUTDOWN_TIMEOUT DRAIN_TIMEOUT BOOT_TIMEOUT JOB_TIMEOUT MAX_ATTEMPTS RETENTION LOG_LEVEL LOG_FORMAT"
)


def test_environment_names_are_the_published_ones() -> None:
    assert [setting.env for setting in SETTINGS] == ISSUE.split()


def test_every_setting_has_flag_help_and_default_text() -> None:
    for setting in SETTINGS:
        assert setting.flag.startswith("--")
        assert setting.help.endswith(".")
        assert setting.default


def test_defaults() -> None:
    settings = load({}, {}, root=True)
    assert dict(settings.describe()) | {"config": ""} == {
        "config": "",
        "max_concurrency": "2",
        "capacity_map": "illumos-latest=2,ubuntu-22.04=4",
        "pending_limit": "100",
        "max_booting": "4",
        "cpu_overcommit": "4",
        "memory_reserve": "1GiB",
        "disk_floor": "2GiB",
        "amqp_url": "amqp://guest:***@localhost:5672/%2F",
        "amqp_exchange": "solstice.jobs",
        "amqp_queue": "solstice.jobs.v1",
        "amqp_routing_key": "jobrequest.v1",
        "amqp_prefetch": "2",
        "amqp_ca_file": "",
        "amqp_cert_file": "",
        "amqp_key_file": "",
        "libvirt_uri": "qemu:///system",
        "libvirt_network": "default",
        "libvirt_domain_type": "auto",
        "backend": "auto",
        "state_dir": "/var/lib/solstice",
        "run_dir": "/run/solstice",
        "database_url": "sqlite:////var/lib/solstice/solstice.db",
        "vm_shutdown_timeout": "30",
        "drain_timeout": "10",
        "boot_timeout": "300",
        "job_timeout": "3600",
        "max_attempts": "2",
        "retention": "30d",
        "log_level": "info",
        "log_format": "text",
    }
    assert settings.capacity_map == {"illumos-latest": 2, "ubuntu-22.04": 4}
    assert settings.amqp_url == "amqp://guest:guest@localhost:5672/%2F"
    assert (settings.cpu_overcommit, settings.memory_reserve, settings.disk_floor) == (4.0, 1024, 2048)
    assert settings.amqp_ca_file is None
    assert (settings.backend, settings.libvirt_domain_type) == (Backend.AUTO, DomainType.AUTO)


def test_flag_beats_environment_beats_default() -> None:
    environ = {"MAX_CONCURRENCY": "3", "BOOT_TIMEOUT": "2.5"}
    settings = load({"max_concurrency": "4", "boot_timeout": None}, environ)
    assert (settings.max_concurrency, settings.boot_timeout, settings.job_timeout) == (4, 2.5, 3600.0)


def test_empty_variable_counts_as_none() -> None:
    assert load({}, {"MAX_CONCURRENCY": ""}).max_concurrency == 2


def test_prefetch_follows_concurrency_unless_it_is_set() -> None:
    assert load({"max_concurrency": "7"}, {}).amqp_prefetch == 7
    assert load({"max_concurrency": "7"}, {"AMQP_PREFETCH": "1"}).amqp_prefetch == 1


def test_directories_of_a_user_follow_xdg() -> None:
    settings = load({}, {"HOME": "/home/u"}, root=False)
    assert settings.state_dir == Path("/home/u/.local/state/solstice")
    assert settings.run_dir == Path("/home/u/.local/state/solstice/run")
    assert settings.database_url == "sqlite:////home/u/.local/state/solstice/solstice.db"
    settings = load({}, {"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"}, root=False)
    assert (settings.state_dir, settings.run_dir) == (Path("/s/solstice"), Path("/r/solstice"))
    settings = load({}, {"HOME": "/h", "XDG_STATE_HOME": "s", "XDG_RUNTIME_DIR": "r"}, root=False)
    assert settings.run_dir == Path("/h/.local/state/solstice/run")


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(
        {"state_dir": "s", "config": "map.yaml", "database_url": "sqlite:///x.db", "amqp_ca_file": "ca.pem"}, {}
    )
    assert settings.amqp_ca_file == tmp_path / "ca.pem"
    assert settings.state_dir == tmp_path / "s"
    assert settings.config == tmp_path / "map.yaml"
    assert settings.database_url == f"sqlite:///{tmp_path}/x.db"


def test_default_map_is_looked_for_here_then_beside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "examples/orchestrator-image-map.yaml"
    assert load({}, {}).config == Path(__file__).resolve().parents[2] / name
    (tmp_path / "examples").mkdir()
    (tmp_path / name).touch()
    assert load({}, {}).config == tmp_path / name


BAD = [
    ("max_concurrency", "0"),
    ("max_concurrency", "two"),
    ("max_concurrency", "٣"),
    ("max_concurrency", "1_0"),
    ("max_concurrency", "9" * 5000),
    ("amqp_prefetch", "0"),
    ("amqp_prefetch", "65536"),
    ("capacity_map", "ubuntu-22.04"),
    ("capacity_map", "ubuntu-22.04=0"),
    ("capacity_map", "a=1,a=2"),
    ("capacity_map", "a=1,,b=2"),
    ("capacity_map", "-a=1"),
    ("capacity_map", "a=100000"),
    ("pending_limit", "0"),
    ("pending_limit", "10001"),
    ("max_booting", "0"),
    ("max_booting", "65536"),
    ("cpu_overcommit", "0"),
    ("cpu_overcommit", "0.0"),
    ("cpu_overcommit", "64.1"),
    ("cpu_overcommit", "1e1"),
    ("cpu_overcommit", "nan"),
    ("memory_reserve", "1024"),
    ("memory_reserve", "-1GiB"),
    ("memory_reserve", "1GB"),
    ("memory_reserve", "1.5GiB"),
    ("memory_reserve", "01GiB"),
    ("memory_reserve", "1025TiB"),
    ("disk_floor", "2 GiB"),
    ("disk_floor", "00"),
    ("amqp_ca_file", "a\0b"),
    ("amqp_cert_file", "a\nb"),
    ("amqp_key_file", "a\0b"),
    ("amqp_url", "http://localhost"),
    ("amqp_url", "amqp://u:hush@:5672"),
    ("amqp_url", "amqp://u:hush/x@host"),
    ("amqp_url", "amqp://u:hush@host:99999"),
    ("amqp_url", "amqp://u:hush@[::1"),
    ("amqp_url", "amqp://u:hush@ho\nst"),
    ("amqp_exchange", " "),
    ("amqp_queue", "q" * 256),
    ("libvirt_network", "a\0b"),
    ("libvirt_domain_type", "xen"),
    ("backend", "vmware"),
    ("backend", ""),
    ("state_dir", ""),
    ("database_url", "postgres://u:hush@db/solstice"),
    ("database_url", "postgresql://u:hush@db"),
    ("database_url", "postgresql://u:hush@db/"),
    ("database_url", "postgresql://u:hush@db:0/solstice"),
    ("database_url", "postgresql://u:hush@db:port/solstice"),
    ("database_url", "postgresql://u:hu sh@db/solstice"),
    ("database_url", "postgresql://u@db/solstice?password=hush"),
    ("database_url", "postgresql+asyncpg://u:hush@db/solstice"),
    ("database_url", "sqlite://"),
    ("database_url", "sqlite:///:memory:"),
    ("database_url", "sqlite:///x.db?mode=ro"),
    ("vm_shutdown_timeout", "-1"),
    ("drain_timeout", "inf"),
    ("boot_timeout", "nan"),
    ("boot_timeout", "0"),
    ("boot_timeout", "0.000"),
    ("job_timeout", "1h"),
    ("job_timeout", "604801"),
    ("log_level", "loud"),
    ("log_format", "xml"),
]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hush@db/solstice",
        "postgresql+psycopg2://u:hush@[::1]:5433/solstice?sslmode=verify-full",
        "postgresql:///solstice?host=/run/postgresql",
    ],
)
def test_database_may_be_one_of_postgresql(url: str) -> None:
    settings = load({"database_url": url}, {})
    assert settings.database_url == url
    assert "hush" not in dict(settings.describe())["database_url"]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad_value_is_refused_in_the_name_it_came_by(name: str, text: str) -> None:
    setting = next(setting for setting in SETTINGS if setting.name == name)
    with pytest.raises(UsageError) as by_flag:
        load({name: text}, {})
    assert by_flag.value.what == setting.flag
    assert by_flag.value.why
    assert by_flag.value.remedy
    assert len(str(by_flag.value)) < 300
    assert "hush" not in str(by_flag.value)
    if text:
        with pytest.raises(UsageError) as by_variable:
            load({}, {setting.env: text})
        assert by_variable.value.what == setting.env


def test_zero_is_allowed_where_it_means_at_once() -> None:
    settings = load({"vm_shutdown_timeout": "0", "drain_timeout": "0.0", "capacity_map": ""}, {})
    assert (settings.vm_shutdown_timeout, settings.drain_timeout, settings.capacity_map) == (0.0, 0.0, {})


@pytest.mark.parametrize(
    ("text", "mebibytes", "shown"),
    [
        ("0", 0, "0"),
        ("0GiB", 0, "0"),
        ("512MiB", 512, "512MiB"),
        ("1536MiB", 1536, "1536MiB"),
        ("2048MiB", 2048, "2GiB"),
        ("1TiB", 1 << 20, "1TiB"),
        ("1024TiB", 1 << 30, "1024TiB"),
    ],
)
def test_amounts_are_in_mebibytes_and_shown_with_a_unit(text: str, mebibytes: int, shown: str) -> None:
    settings = load({"memory_reserve": text, "disk_floor": text}, {})
    assert (settings.memory_reserve, settings.disk_floor) == (mebibytes, mebibytes)
    described = dict(settings.describe())
    assert (described["memory_reserve"], described["disk_floor"]) == (shown, shown)


def test_an_empty_flag_takes_the_file_of_the_environment_away() -> None:
    environ = {"AMQP_CA_FILE": "/ca.pem"}
    assert load({}, environ).amqp_ca_file == Path("/ca.pem")
    assert load({"amqp_ca_file": ""}, environ).amqp_ca_file is None


def test_limits_rank_between_environment_and_default() -> None:
    limits = {"max_concurrency": 5, "pending_limit": 6, "max_booting": 7}
    settings = load({"max_concurrency": "1"}, {"PENDING_LIMIT": "2", "MAX_BOOTING": ""}, limits=limits)
    assert (settings.max_concurrency, settings.pending_limit, settings.max_booting) == (1, 2, 7)


# Each setting with a text that is not its default.  No passwords: those are not described.
TEXTS = {
    "config": "/etc/map.yaml",
    "max_concurrency": "65535",
    "capacity_map": "a=1,b-2.c=99999",
    "pending_limit": "10000",
    "max_booting": "1",
    "cpu_overcommit": "0.000000001",
    "memory_reserve": "1500MiB",
    "disk_floor": "0",
    "amqp_url": "amqps://broker/v",
    "amqp_exchange": " an exchange ",
    "amqp_queue": "q",
    "amqp_routing_key": "ä",
    "amqp_prefetch": "9",
    "amqp_ca_file": "/etc/ca.pem",
    "amqp_cert_file": "/etc/a cert.pem",
    "amqp_key_file": "/etc/key.pem",
    "libvirt_uri": "qemu+ssh://root@host/system",
    "libvirt_network": "lab",
    "libvirt_domain_type": "kvm",
    "backend": "noop",
    "state_dir": "/s",
    "run_dir": "/r",
    "database_url": "sqlite:////d/x.db",
    "vm_shutdown_timeout": "0",
    "drain_timeout": "604799.999999999",
    "boot_timeout": "0.00001",
    "job_timeout": "604800",
    "max_attempts": "20",
    "retention": "90min",
    "log_level": "error",
    "log_format": "json",
}


def test_what_is_described_parses_back_to_the_same_value() -> None:
    settings = load(TEXTS, {})
    assert dict(settings.describe()) == TEXTS
    assert load(dict(settings.describe()), {}) == settings
    defaults = load({"amqp_url": "amqp://broker"}, {}, root=True)
    assert load(dict(defaults.describe()), {}) == defaults


@given(st.sampled_from(SETTINGS), st.data())
def test_whatever_parses_is_described_in_its_own_syntax(setting: Setting, data: st.DataObject) -> None:
    number = st.decimals(0, 604_800, places=9).map(lambda value: f"{value:f}")
    amount = st.builds(lambda count, unit: f"{count}{unit}", st.integers(0, 4096), st.sampled_from(list(UNITS)))
    try:
        value = setting.parse(data.draw(st.text() | number | amount | st.integers(0, 70_000).map(str)))
    except Bad:
        return
    assert setting.parse(setting.write(value)) == value


@given(st.sampled_from(SETTINGS), st.text())
def test_any_text_gives_settings_or_a_usage_error(setting: Setting, text: str) -> None:
    try:
        load({setting.name: text}, {})
    except UsageError as error:
        assert error.remedy  # noqa: PT017 - either outcome is right


def test_description_shows_no_password() -> None:
    text = str(load({"amqp_url": "amqps://u:hush@h/v"}, {}).describe())
    assert "amqps://u:***@h/v" in text
    assert "hush" not in text

"""The settings: one table, flags over environment over the image map's limits over defaults.

Read by the composition root (cli), through configuration where the limits count.

The command line makes its options and its --help from `SETTINGS`, so flag, variable, default and help stand nowhere
else.  An empty variable counts as none: service managers set those.  No file is opened here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from solstice.config.parsers import (
    UNITS,
    Bad,
    age,
    amount,
    amqp_url,
    capacity,
    choice,
    database_url,
    integer,
    line,
    optional_path,
    path,
    ratio,
    seconds,
)
from solstice.errors import UsageError
from solstice.model import Backend, DomainType
from solstice.protocol.urls import mask_url

_MAP_IN_CHECKOUT = Path("examples/orchestrator-image-map.yaml")
_MAP_INSTALLED = Path("/etc/solstice/image-map.yaml")
_MAX_MIB = 1 << 30


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `load` gives: checked values.  Durations in float seconds, amounts in MiB, paths absolute."""

    config: Path
    max_concurrency: int
    capacity_map: Mapping[str, int]
    pending_limit: int
    max_booting: int
    cpu_overcommit: float
    memory_reserve: int
    disk_floor: int
    amqp_url: str
    amqp_exchange: str
    amqp_queue: str
    amqp_routing_key: str
    amqp_prefetch: int
    amqp_ca_file: Path | None
    amqp_cert_file: Path | None
    amqp_key_file: Path | None
    libvirt_uri: str
    libvirt_network: str
    libvirt_domain_type: DomainType
    backend: Backend
    state_dir: Path
    run_dir: Path
    database_url: str
    vm_shutdown_timeout: float
    drain_timeout: float
    boot_timeout: float
    job_timeout: float
    max_attempts: int
    retention: float
    log_level: LogLevel
    log_format: LogFormat

    def describe(self) -> list[tuple[str, str]]:
        """Every setting as (name, value) in the table's order and syntax, passwords masked."""
        return [(setting.name, mask_url(setting.write(getattr(self, setting.name)))) for setting in SETTINGS]


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case Mapping():
            return ",".join(f"{key}={count}" for key, count in value.items())
        case float():
            return f"{value:.9f}".rstrip("0").rstrip(".")  # str() would write small ones as 1e-09
        case _:
            return str(value)


def _age(value: Any) -> str:
    """The largest unit that says it exactly."""
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    unit = next(unit for unit, size in units.items() if value % size == 0)
    return f"{value // units[unit]:.0f}{unit}" if value else "0"


def _amount(mebibytes: int) -> str:
    """In the largest unit that it is a whole number of."""
    unit = max((name for name in UNITS if mebibytes % UNITS[name] == 0), key=UNITS.__getitem__)
    return f"{mebibytes // UNITS[unit]}{unit}" if mebibytes else "0"


@dataclass(frozen=True, slots=True)
class Source:
    """What a default may depend on: the settings above it in the table, the environment, whether this is root."""

    values: Mapping[str, Any]
    environ: Mapping[str, str]
    root: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One row.  `default` is the default in the setting's own syntax; with `derive` it only describes it for --help.

    `secret` marks a value that may hold a password: it is in no message, and masked where it is shown.
    `write` is the way back from `parse`.  `limit` says that the image map may hold it too.
    """

    name: str
    env: str
    flag: str
    parse: Callable[[str], Any]
    default: str
    help: str
    secret: bool = False
    limit: bool = False
    write: Callable[[Any], str] = _text
    derive: Callable[[Source], Any] | None = None

    def fallback(self, source: Source) -> Any:
        return self.derive(source) if self.derive else self.parse(self.default)


def _default_config(_: Source) -> Path:
    beside_package = Path(__file__).resolve().parents[2] / _MAP_IN_CHECKOUT
    for candidate in (_MAP_IN_CHECKOUT.absolute(), beside_package):
        if candidate.is_file():
            return candidate
    return _MAP_INSTALLED


def _default_state_dir(source: Source) -> Path:
    if source.root:
        return Path("/var/lib/solstice")
    base = source.environ.get("XDG_STATE_HOME", "")
    if Path(base).is_absolute():  # the XDG specification wants relative ones ignored
        return Path(base) / "solstice"
    return Path(source.environ.get("HOME") or Path.home()) / ".local/state/solstice"


def _default_run_dir(source: Source) -> Path:
    if source.root:
        return Path("/run/solstice")
    base = source.environ.get("XDG_RUNTIME_DIR", "")
    state_dir: Path = source.values["state_dir"]
    return Path(base) / "solstice" if Path(base).is_absolute() else state_dir / "run"


def _default_database_url(source: Source) -> str:
    return database_url(f"sqlite:///{source.values['state_dir'] / 'solstice.db'}")


def _no_file(_: Source) -> None:
    return None


# fmt: off
SETTINGS: tuple[Setting, ...] = (
    Setting("config", "ORCH_CONFIG", "--config", path,
            f"{_MAP_IN_CHECKOUT}, else {_MAP_INSTALLED}", "The image map.", derive=_default_config),
    Setting("max_concurrency", "MAX_CONCURRENCY", "--max-concurrency", integer(1, 65535), "2",
            "How many jobs run at a time on this host.", limit=True),
    Setting("capacity_map", "CAPACITY_MAP", "--capacity-map", capacity, "illumos-latest=2,ubuntu-22.04=4",
            "How many jobs of a label run at a time: LABEL=N,LABEL=N.", limit=True),
    Setting("pending_limit", "PENDING_LIMIT", "--pending-limit", integer(1, 10_000), "100",
            "How many accepted jobs may wait on this host; more stay in the queue.", limit=True),
    Setting("max_booting", "MAX_BOOTING", "--max-booting", integer(1, 65535), "4",
            "How many machines boot at a time.", limit=True),
    Setting("cpu_overcommit", "CPU_OVERCOMMIT", "--cpu-overcommit", ratio(64), "4",
            "How many virtual CPUs the machines may have for each CPU of the host.", limit=True),
    Setting("memory_reserve", "MEMORY_RESERVE", "--memory-reserve", amount(0, _MAX_MIB, "1GiB"), "1GiB",
            "The memory that is kept from the machines, for the host: 0, or such as 512MiB.",
            limit=True, write=_amount),
    Setting("disk_floor", "DISK_FLOOR", "--disk-floor", amount(0, _MAX_MIB, "2GiB"), "2GiB",
            "The free disk space under the state directory below which no job starts.",
            limit=True, write=_amount),
    Setting("amqp_url", "AMQP_URL", "--amqp-url", amqp_url, "amqp://guest:guest@localhost:5672/%2F",
            "The RabbitMQ broker.", secret=True),
    Setting("amqp_exchange", "AMQP_EXCHANGE", "--amqp-exchange", line("solstice.jobs"), "solstice.jobs",
            "The exchange that job requests are published to."),
    Setting("amqp_queue", "AMQP_QUEUE", "--amqp-queue", line("solstice.jobs.v1"), "solstice.jobs.v1",
            "The queue that job requests are read from."),
    Setting("amqp_routing_key", "AMQP_ROUTING_KEY", "--amqp-routing-key", line("jobrequest.v1"), "jobrequest.v1",
            "The routing key from the exchange to the queue."),
    Setting("amqp_prefetch", "AMQP_PREFETCH", "--amqp-prefetch", integer(1, 65535), "as MAX_CONCURRENCY",
            "How many requests the broker sends ahead.", derive=lambda source: source.values["max_concurrency"]),
    Setting("amqp_ca_file", "AMQP_CA_FILE", "--amqp-ca-file", optional_path, "none",
            "The authorities (PEM) that an amqps broker's certificate must come from; none: the system's.",
            derive=_no_file),
    Setting("amqp_cert_file", "AMQP_CERT_FILE", "--amqp-cert-file", optional_path, "none",
            "The client certificate (PEM) to show to an amqps broker.", derive=_no_file),
    Setting("amqp_key_file", "AMQP_KEY_FILE", "--amqp-key-file", optional_path, "none",
            "The client certificate's key (PEM); none: it is in the certificate's file.", derive=_no_file),
    Setting("libvirt_uri", "LIBVIRT_URI", "--libvirt-uri", line("qemu:///system"), "qemu:///system",
            "The libvirt connection."),
    Setting("libvirt_network", "LIBVIRT_NETWORK", "--libvirt-network", line("default"), "default",
            "The libvirt network that guests are in."),
    Setting("libvirt_domain_type", "LIBVIRT_DOMAIN_TYPE", "--libvirt-domain-type", choice(DomainType), "auto",
            "kvm, qemu (plain emulation), or auto: find out by booting a kernel."),
    Setting("backend", "SOLSTICE_BACKEND", "--backend", choice(Backend), "auto",
            "libvirt, zones, noop (runs nothing), or auto: what this host has."),
    Setting("state_dir", "SOLSTICE_STATE_DIR", "--state-dir", path,
            "/var/lib/solstice for root, else $XDG_STATE_HOME/solstice or ~/.local/state/solstice",
            "Where jobs, logs and the database are kept.", derive=_default_state_dir),
    Setting("run_dir", "SOLSTICE_RUN_DIR", "--run-dir", path,
            "/run/solstice for root, else $XDG_RUNTIME_DIR/solstice or run in the state directory",
            "Where the control socket is.", derive=_default_run_dir),
    Setting("database_url", "DATABASE_URL", "--database-url", database_url, "solstice.db in the state directory",
            "The database: sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME.",
            secret=True, derive=_default_database_url),
    Setting("vm_shutdown_timeout", "VM_SHUTDOWN_TIMEOUT", "--vm-shutdown-timeout", seconds(zero=True), "30",
            "Seconds a machine has to shut down before it is destroyed."),
    Setting("drain_timeout", "DRAIN_TIMEOUT", "--drain-timeout", seconds(zero=True), "10",
            "Seconds running jobs have to end when Solstice is stopped."),
    Setting("boot_timeout", "BOOT_TIMEOUT", "--boot-timeout", seconds(), "300",
            "Seconds a guest has from its start until its runner reports."),
    Setting("job_timeout", "JOB_TIMEOUT", "--job-timeout", seconds(), "3600",
            "Seconds a job may run that has no timeout_s of its own."),
    Setting("max_attempts", "MAX_ATTEMPTS", "--max-attempts", integer(1, 20), "2",
            "How often a job is tried that fails by the host's fault."),
    Setting("retention", "RETENTION", "--retention", age, "30d",
            "For how long ended jobs and their logs are kept: such as 30d or 12h; 0: for ever.", write=_age),
    Setting("log_level", "LOG_LEVEL", "--log-level", choice(LogLevel), "info",
            "debug, info, warning or error."),
    Setting("log_format", "LOG_FORMAT", "--log-format", choice(LogFormat), "text",
            "text, or json: one object a line."),
)
# fmt: on


def load(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    limits: Mapping[str, Any] | None = None,
    root: bool | None = None,
) -> Settings:
    """The settings of this process.

    `flags` maps `Setting.name` to the text of a flag, None or absent where the flag was not given; `limits` maps it to
    the value that the image map has.  `root` says whose default directories apply, by default those of the process's
    user.  Raises `UsageError`, which names the flag or the variable.
    """
    values: dict[str, Any] = {}
    source = Source(values, environ, os.geteuid() == 0 if root is None else root)
    for setting in SETTINGS:
        values[setting.name] = _value(setting, flags.get(setting.name), limits or {}, source)
    return Settings(**values)


def _value(setting: Setting, flag: str | None, limits: Mapping[str, Any], source: Source) -> Any:
    variable = source.environ.get(setting.env) or None
    where, text = (setting.env, variable) if flag is None else (setting.flag, flag)
    if text is None and setting.name in limits:
        return limits[setting.name]
    try:
        return setting.fallback(source) if text is None else setting.parse(text)
    except Bad as bad:
        raise UsageError(where, bad.why, bad.remedy) from None

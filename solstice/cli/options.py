"""Flags from the table of settings: each command takes those that it needs, and names the variable beside each."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from solstice.config.settings import SETTINGS, Settings, load

F = TypeVar("F", bound=Callable[..., Any])

LOGGING = ("log_level", "log_format")
PLACES = ("state_dir", "run_dir")
BROKER = (
    "amqp_url",
    "amqp_exchange",
    "amqp_queue",
    "amqp_routing_key",
    "amqp_ca_file",
    "amqp_cert_file",
    "amqp_key_file",
)
GUESTS = (
    "config",
    "backend",
    "libvirt_uri",
    "libvirt_network",
    "libvirt_domain_type",
    "vm_shutdown_timeout",
    "boot_timeout",
    "job_timeout",
)
EVERYTHING = tuple(setting.name for setting in SETTINGS)


def settings(*names: str) -> Callable[[F], F]:
    """Give a command a flag for each of these settings."""

    def decorate(command: F) -> F:
        for setting in reversed([setting for setting in SETTINGS if setting.name in names]):
            text = f"{setting.help}  [{setting.env}; default: {setting.default}]"
            command = click.option(setting.flag, setting.name, metavar="VALUE", help=text)(command)
        return command

    return decorate


def taken(flags: dict[str, Any]) -> dict[str, str | None]:
    """The flags of settings, taken out of `flags`."""
    return {name: flags.pop(name) for name in EVERYTHING if name in flags}


def loaded(flags: dict[str, Any]) -> Settings:
    """The settings of a command, whatever the image map says; what is no setting is left in `flags`.

    Raises `UsageError`.
    """
    return load(taken(flags), os.environ)

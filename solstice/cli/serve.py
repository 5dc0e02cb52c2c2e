"""`solstice serve`: the supervisor, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from functools import partial
from typing import Any

import click

from solstice import logs
from solstice.cli import options
from solstice.cli.service import obey_signals
from solstice.config import configuration
from solstice.host.service import Notifier
from solstice.hypervisors import router
from solstice.supervisor.core import Interrupted, Supervisor

log = logging.getLogger(__name__)


@click.command(short_help="take jobs from the broker and run them")
@options.settings(*options.EVERYTHING)
def serve(**flags: Any) -> None:
    """Take jobs from the broker and give each a fresh virtual machine.

    SIGTERM or Ctrl-C: nothing new is taken, what ends within the drain time ends, the rest is put back and runs at the
    next start.  A second signal hurries.  SIGQUIT: nothing new is taken, what was accepted is finished, then it ends.
    SIGHUP: the image map and its limits are read again.  Exit code 0 after a stop, 2 if it cannot start.
    """
    settings = options.loaded(dict(flags))
    logs.setup(settings.log_level, settings.log_format, sys.stderr)
    read = partial(configuration.read, flags, os.environ)
    first = read()
    supervisor = Supervisor(first, router.choose(settings.backend), read, Notifier(os.environ))

    async def run() -> None:
        obey_signals(supervisor, is_service=True)
        with contextlib.suppress(Interrupted):
            await supervisor.serve()
        log.info("stopped")

    asyncio.run(run())

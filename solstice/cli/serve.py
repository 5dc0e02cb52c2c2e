"""`solstice serve`: the supervisor, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Any

import click

from solstice import logs
from solstice.cli import options
from solstice.cli.service import obey_signals
from solstice.config import imagemap
from solstice.hypervisors import router
from solstice.supervisor.core import Interrupted, Supervisor

log = logging.getLogger(__name__)


@click.command(short_help="take jobs from the broker and run them")
@options.settings(*options.EVERYTHING)
def serve(**flags: Any) -> None:
    """Take jobs from the broker and give each a fresh virtual machine.

    SIGTERM or Ctrl-C: nothing new is taken, what ends within the drain time ends, the rest is put back and runs at the
    next start.  A second signal hurries.  Exit code 0 after a stop, 2 if it cannot start.
    """
    settings = options.loaded(flags)
    logs.setup(settings.log_level, settings.log_format, sys.stderr)
    image_map = imagemap.load(settings.config)
    supervisor = Supervisor(settings, image_map, router.choose(settings.backend))

    async def run() -> None:
        obey_signals(supervisor)
        with contextlib.suppress(Interrupted):
            await supervisor.serve()
        log.info("stopped")

    asyncio.run(run())

"""The command `migrafed`: read the command line, carry out one command, say how it ended, leave with its exit code."""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from migrafed.arguments import parse
from migrafed.terminal import Terminal
from protocol.errors import InputError

# Flower neither phones home nor installs anything: nobody asked for a network call.
_FLOWER = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see `migrafed --help` for the codes."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.update(_FLOWER)
    _write_any_letter()
    terminal = Terminal(as_json="--json" in given, debug="--debug" in given)
    try:
        options = parse(given, importlib.metadata.version("migrafed"))
    except InputError as error:
        return terminal.fail(error)
    with terminal.listening():
        try:
            _stop_politely()
            # Loaded now and not above: a command brings its libraries along, and --help needs none of them.
            command = importlib.import_module(f"migrafed.commands.{options.command}")
            return terminal.finish(command.run(options, terminal))
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 -- the last line of defence: said, logged, exit 1
            terminal.progress.close()
            return terminal.fail(error)


def _write_any_letter() -> None:
    """A terminal that lacks a letter (an arrow, a name) shows a substitute instead of ending the run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _stop_politely() -> None:
    """A service manager's TERM stops a run as Ctrl-C does: resumable, with exit code 4."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

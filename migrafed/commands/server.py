"""`migrafed server verify`: what whoever coordinates a run, or doubts its coordinator, looks at."""

from __future__ import annotations

import argparse
import importlib

from migrafed.terminal import Outcome, Terminal


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Hand over to the subject; loaded now, so that --help needs none of its libraries."""
    return importlib.import_module(f"migrafed.commands.server_{options.subject}").run(options, terminal)

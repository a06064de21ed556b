"""`migrafed holder ledger|check|release`: what a data holder does and looks at. Each subject is a module of its own."""

from __future__ import annotations

import argparse
import importlib

from migrafed.terminal import Outcome, Terminal


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Hand over to the subject; loaded now, so that reading a ledger needs no query engine."""
    return importlib.import_module(f"migrafed.commands.holder_{options.subject}").run(options, terminal)

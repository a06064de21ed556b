"""`migrafed demo`: the plan that comes with the package, on a synthetic world, offline."""

from __future__ import annotations

import argparse
from importlib.resources import as_file, files

from migrafed.commands.simulate import run_plan
from migrafed.terminal import Outcome, Terminal
from protocol.plan import load_plan


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Carry out the embedded plan."""
    with as_file(files("simulations") / "plans" / "demo.toml") as path:
        plan = load_plan(path)
    return run_plan(plan, terminal, out=options.out, command="migrafed demo")

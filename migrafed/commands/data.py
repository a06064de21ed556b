"""`migrafed data make PLAN --out DIR`: write the made-up world of a plan as the folders of its holders."""

from __future__ import annotations

import argparse

from migrafed.arguments import overrides
from migrafed.terminal import Outcome, Terminal
from protocol.plan import load_plan
from simulations.holder_folders import make_folders


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Write the folders, and say where each is and what reads them."""
    plan = load_plan(options.plan, overrides=overrides(options.settings))
    made = make_folders(plan, options.out, progress=terminal.progress)
    paths = {"plan": str(made.plan_file), "public": str(made.public)}
    holders = {name: str(folder) for name, folder in made.holders.items()}
    payload = {"plan_hash": made.plan.digest(), "holders": holders, "paths": paths}
    facts = [*paths.items(), *((f"holder {name}", folder) for name, folder in holders.items())]
    facts.append(("note", "made-up data: nobody's"))
    return Outcome(payload, f"SUCCESS data of {len(holders)} holders", facts)

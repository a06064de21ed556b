"""The words of `migrafed server run` and `migrafed server resume`. Light to import, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from migrafed.command_words import EXIT_CODES, FORMAT, Parser, outputs

if TYPE_CHECKING:
    import argparse

_RUN = f"""\
examples:
  migrafed server run plan.toml --server coordinator
  migrafed server run plan.toml --server coordinator --set training.rounds=5 --json

Every holder of the plan must have approved exactly this plan, the roster of its holders and this version. What breaks
off on the way (a SuperLink, a node, an agent) is taken up again by itself, up to patience.attempts times in a
row; after that, after Ctrl-C or a crash, 'migrafed server resume' goes on from the last committed round, with the same
result.

{EXIT_CODES}"""
_RESUME = f"""\
examples:
  migrafed server resume coordinator/runs/study-s0-1a2b3c4d --server coordinator

{EXIT_CODES}"""


def add_runs(subjects: argparse._SubParsersAction[Parser]) -> None:
    """The two words that carry out a plan."""
    run = subjects.add_parser(
        "run",
        help="carry out a plan over the holders that approved it",
        description="Carry out a plan over the holders that approved it; this process is the run's coordinator.",
        epilog=_RUN,
        formatter_class=FORMAT,
    )
    run.add_argument("plan", type=Path, metavar="PLAN", help="the plan that the holders approved, a TOML file")
    run.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="A.B=C", help="change one key; repeatable"
    )
    run.add_argument("--seed", type=int, metavar="N", help="seed in place of the plan's")
    _common(run)
    resume = subjects.add_parser(
        "resume",
        help="go on with a run that was stopped or broke off",
        description="Go on with a run from its last committed round, with the same result.",
        epilog=_RESUME,
        formatter_class=FORMAT,
    )
    resume.add_argument("run", type=Path, metavar="RUN", help="folder of the run")
    _common(resume)


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--server", type=Path, default=Path(), metavar="DIR", help="the coordinator's folder (default: here)"
    )
    outputs(command)

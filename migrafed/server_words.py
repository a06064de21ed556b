"""The words of `migrafed server …`. Light to import, so that --help is quick."""

from __future__ import annotations

from pathlib import Path

from migrafed.command_words import EXIT_CODES, FORMAT, Nouns, outputs
from migrafed.run_words import add_runs
from migrafed.server_deployment_words import add_deployment

_SERVER = f"""\
examples:
  migrafed server init coordinator --name study --host coordinator.example.org --listen 0.0.0.0
  migrafed server up --server coordinator --detach
  migrafed server invite north --server coordinator
  migrafed server admit joining-north.json --server coordinator
  migrafed server roster plan.toml --server coordinator
  migrafed server run plan.toml --server coordinator
  migrafed server status --server coordinator
  migrafed server verify coordinator/runs/study-s0-1a2b3c4d

{EXIT_CODES}"""
_VERIFY = f"""\
examples:
  migrafed server verify runs/first
  migrafed server verify runs/first --roster 3f6c...    the roster that an operator approved, 64 digits
  migrafed server verify runs/first --json | jq .failure

Reads journal.sqlite, plan.lock.toml and model.safetensors of the run, and card.json where run.json lies beside it, and
changes nothing. Every signature, seed and sum is rechecked, and every training carried out once more from its sums.
Exit code 1 if something does not hold: the first such stage, session and sum is named. Exit code 2 for a run that is
not finished, is damaged, or masked nothing.

{EXIT_CODES}"""


def add_server(nouns: Nouns) -> None:
    server = nouns.add_parser(
        "server",
        help="the coordinator's side: invite holders, carry out a plan over them, recheck a finished run",
        description="The coordinator's side, for whoever coordinates a run or doubts the coordinator.",
        epilog=_SERVER,
        formatter_class=FORMAT,
    )
    subjects = server.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    add_deployment(subjects)
    add_runs(subjects)
    verify = subjects.add_parser(
        "verify",
        help="recheck every masked sum of a finished run, and train once more from the sums",
        description="Recheck a finished run from its transcript: keys, signatures, masks, sums, rounds and the model.",
        epilog=_VERIFY,
        formatter_class=FORMAT,
    )
    verify.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    verify.add_argument("--roster", metavar="HASH", help="hash of the roster that a holder's operator approved")
    outputs(verify)

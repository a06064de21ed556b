"""The words of the command line: nouns, options, exit codes and examples. Light to import, so that --help is quick."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from migrafed.command_words import EXIT_CODES, FORMAT, Nouns, Parser, outputs, positive
from migrafed.data_words import add_data
from migrafed.holder_words import add_holder
from migrafed.server_words import add_server
from protocol.errors import InputError

_TOP = f"""\
examples:
  migrafed demo                                     a small synthetic federation, offline, in minutes
  migrafed simulate plan.toml --data DIR            run a plan on data
  migrafed simulate plan.toml --set training.rounds=5 --seed 3
  migrafed report runs/japan_regions-s0-1a2b3c4d    rebuild report.html from a run folder
  migrafed doctor --data DIR                        check this machine and the data
  migrafed holder check holder.toml                 look at a sample of a holder's raw job queries or call records
  migrafed holder release holder.toml --period all  release their counts with noise, each day once
  migrafed holder ledger show DIR                   what a holder's privacy budget was spent on
  migrafed holder approve plan.toml --holder north  read on one page what a plan does at a holder, and approve it
  migrafed holder agent --holder north              take part in runs: data, keys and ledger, without a network
  migrafed holder node --holder north               the network, without data
  migrafed server run plan.toml --server DIR        carry out a plan over holders elsewhere
  migrafed server verify runs/first                 recheck every masked sum of a finished run
  migrafed audit --mutation                         try to break the privacy mechanisms

{EXIT_CODES}"""
_SIMULATE = f"""\
examples:
  migrafed simulate plan.toml --data ../data --out runs/first
  migrafed simulate plan.toml --set training.rounds=5 --set training.batch_size=16
  migrafed simulate runs/first/plan.lock.toml --data ../data --resume runs/first
  migrafed simulate plan.toml --ledgers ledgers     budgets that outlive the run
  migrafed simulate plan.toml --json | jq '.metrics[] | select(.horizon == "all")'

A run never overwrites a folder. Ctrl-C stops it after which --resume continues it, with the same result.

{EXIT_CODES}"""


_AUDIT = f"""\
examples:
  migrafed audit                                    the checks that run before every private run
  migrafed audit --mutation --runs 100 --out audits/first
  migrafed audit --canaries --attacks --json

{EXIT_CODES}"""


def parser(version: str) -> argparse.ArgumentParser:
    """The whole command line; `command` of the parsed arguments names the module that carries it out."""
    top = Parser(
        prog="migrafed",
        description="Federated forecasting of labor-migration intention, from counts that their holders keep.",
        epilog=_TOP,
        formatter_class=FORMAT,
    )
    top.add_argument("--version", action="version", version=f"migrafed {version}")
    nouns = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _demo(nouns)
    _simulate(nouns)
    _report(nouns)
    _doctor(nouns)
    add_data(nouns)
    _audit(nouns)
    add_holder(nouns)
    add_server(nouns)
    return top


def parse(arguments: Sequence[str], version: str) -> argparse.Namespace:
    """Read a command line.

    Raises:
        InputError: it is not one of ours.
    """
    return parser(version).parse_args(arguments)


def overrides(pairs: Sequence[str]) -> dict[str, str]:
    """The --set options as a mapping.

    Raises:
        InputError: an option is not of the form section.key=value.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or "." not in key:
            raise InputError(f"--set {pair}: give it as section.key=value, for example --set training.rounds=5")
        found[key.strip()] = value.strip()
    return found


def _demo(nouns: Nouns) -> None:
    demo = nouns.add_parser(
        "demo",
        help="federate the forecaster over a small synthetic world",
        description="Run the plan that comes with migrafed: a synthetic world of job-query counts and four holders.",
        epilog=f"examples:\n  migrafed demo\n  migrafed demo --out runs/demo --json\n\n{EXIT_CODES}",
        formatter_class=FORMAT,
    )
    demo.add_argument("--out", type=Path, metavar="DIR", help="folder of the run; new, or empty")
    outputs(demo)


def _simulate(nouns: Nouns) -> None:
    simulate = nouns.add_parser(
        "simulate",
        help="run a plan with all its holders on this machine",
        description="Run a plan with all its holders on this machine, beside pooled training, each holder alone and "
        "simple baselines; then write the report.",
        epilog=_SIMULATE,
        formatter_class=FORMAT,
    )
    simulate.add_argument("plan", type=Path, metavar="PLAN", help="the plan, a TOML file")
    simulate.add_argument("--data", type=Path, metavar="DIR", help="folder of the data the plan names")
    simulate.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run; new, or empty (default: runs/NAME)"
    )
    simulate.add_argument(
        "--engine",
        choices=("inprocess", "ray"),
        default="inprocess",
        help="what carries the messages (ray: extra 'ray')",
    )
    simulate.add_argument("--seed", type=_seed, metavar="N", help="seed in place of the plan's")
    simulate.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="A.B=C",
        help="change one key of the plan; repeatable",
    )
    simulate.add_argument(
        "--ledgers",
        type=Path,
        metavar="DIR",
        help="privacy ledgers of the simulated holders, kept between runs; required for private runs on real data",
    )
    simulate.add_argument(
        "--scores",
        action="store_true",
        help="also write each person's score, for its own operator; only where every operator's policy consents",
    )
    simulate.add_argument("--resume", type=Path, metavar="RUN", help="folder of an interrupted run of the same plan")
    outputs(simulate)


def _report(nouns: Nouns) -> None:
    report = nouns.add_parser(
        "report",
        help="rebuild report.html from a run folder",
        description="Check a finished run folder and rebuild its report.html from it alone; same run, same bytes.",
        epilog=f"example:\n  migrafed report runs/first\n\n{EXIT_CODES}",
        formatter_class=FORMAT,
    )
    report.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    outputs(report)


def _doctor(nouns: Nouns) -> None:
    doctor = nouns.add_parser(
        "doctor",
        help="check versions, disk, clock and data; each failure names its fix",
        description="Check this machine, and with --data the data, before a run; changes nothing, uses no network.",
        epilog=f"examples:\n  migrafed doctor\n  migrafed doctor --data ../data\n\n{EXIT_CODES}",
        formatter_class=FORMAT,
    )
    doctor.add_argument("--data", type=Path, metavar="DIR", help="folder or Parquet file to read and check")
    outputs(doctor)


def _audit(nouns: Nouns) -> None:
    audit = nouns.add_parser(
        "audit",
        help="try to break the privacy mechanisms, and show that the checks would notice",
        description="Check the mechanisms that private runs use; with --mutation, also that every planted defect is "
        "caught and the correct mechanisms pass. Uses made-up data only.",
        epilog=_AUDIT,
        formatter_class=FORMAT,
    )
    audit.add_argument("--mutation", action="store_true", help="plant every known defect and show what catches it")
    audit.add_argument(
        "--runs", type=positive, metavar="N", help="with --mutation: runs of the correct mechanisms (10)"
    )
    audit.add_argument("--canaries", action="store_true", help="lower bounds on epsilon from made-up people")
    audit.add_argument("--attacks", action="store_true", help="membership inference and gradient inversion")
    audit.add_argument("--quick", action="store_true", help="the short form: smaller models, fewer runs")
    audit.add_argument("--out", type=Path, metavar="DIR", help="also write all results to DIR/audit.json")
    outputs(audit)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)

"""The words of the command line: nouns, options, exit codes and examples. Light to import, so that --help is quick."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypeAlias

from protocol.errors import InputError

EXIT_CODES = """\
exit codes:
  0  success
  1  failed: training could not go on, a check of 'doctor', 'audit' or 'server verify' failed, or an unexpected error
  2  bad input: command line, plan, data or run folder; nothing was changed
  3  refused: a privacy rule of a holder forbids it
  4  interrupted on request; the run can be resumed with --resume
"""
_FORMAT = argparse.RawDescriptionHelpFormatter
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


_LEDGER = f"""\
examples:
  migrafed holder ledger show holders/north/ledger
  migrafed holder ledger verify holders/north/ledger --public-key 3d79... --witness 12:906a...
  migrafed holder ledger export holders/north/ledger --out north.json

{EXIT_CODES}"""


_CHECK = f"""\
examples:
  migrafed holder check holder.toml
  migrafed holder check holder.toml --rows 1000000
  migrafed holder check holder.toml --backend pyspark://  with queries = "table:job_queries"

Prints shares and counts of a sample, never a user key, a text or an address. They are made of raw rows: the output
stays with the holder. Exit code 2 if a check failed, after the table.

{EXIT_CODES}"""
_RELEASE = f"""\
examples:
  migrafed holder release holder.toml --period 2026-03-01
  migrafed holder release holder.toml --period 2026-03-01..2026-03-31
  migrafed holder release holder.toml --period all            every complete step that was not released yet
  migrafed holder release holder.toml --period all --complete  the last one too: no later rows will come

All steps of one ledger period ([privacy] period) are charged once, together: a person counts in at most
[release] contributions cells over any window_days days. A step is released once; asked again, it gives the same values.
Stopped or killed at any moment, the same command goes on where it was.

{EXIT_CODES}"""


_VERIFY = f"""\
examples:
  migrafed server verify runs/first
  migrafed server verify runs/first --roster 3f6c...    the roster that an operator approved, 64 digits
  migrafed server verify runs/first --json | jq .failure

Reads journal.sqlite, plan.lock.toml and model.safetensors of the run and changes nothing. Every signature, seed and sum
is rechecked, and every training carried out once more from its sums. Exit code 1 if something does not hold: the first
such stage, session and sum is named. Exit code 2 for a run that is not finished, is damaged, or masked nothing.

{EXIT_CODES}"""


class _Parser(argparse.ArgumentParser):
    """Raises instead of leaving, so that --json answers with one object even to a bad command line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see '{self.prog} --help'")


_Nouns: TypeAlias = "argparse._SubParsersAction[_Parser]"


def parser(version: str) -> argparse.ArgumentParser:
    """The whole command line; `command` of the parsed arguments names the module that carries it out."""
    top = _Parser(
        prog="migrafed",
        description="Federated forecasting of labor-migration intention, from counts that their holders keep.",
        epilog=_TOP,
        formatter_class=_FORMAT,
    )
    top.add_argument("--version", action="version", version=f"migrafed {version}")
    nouns = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _demo(nouns)
    _simulate(nouns)
    _report(nouns)
    _doctor(nouns)
    _audit(nouns)
    _holder(nouns)
    _server(nouns)
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


def _demo(nouns: _Nouns) -> None:
    demo = nouns.add_parser(
        "demo",
        help="federate the forecaster over a small synthetic world",
        description="Run the plan that comes with migrafed: a synthetic world of job-query counts and four holders.",
        epilog=f"examples:\n  migrafed demo\n  migrafed demo --out runs/demo --json\n\n{EXIT_CODES}",
        formatter_class=_FORMAT,
    )
    demo.add_argument("--out", type=Path, metavar="DIR", help="folder of the run; new, or empty")
    _outputs(demo)


def _simulate(nouns: _Nouns) -> None:
    simulate = nouns.add_parser(
        "simulate",
        help="run a plan with all its holders on this machine",
        description="Run a plan with all its holders on this machine, beside pooled training, each holder alone and "
        "simple baselines; then write the report.",
        epilog=_SIMULATE,
        formatter_class=_FORMAT,
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
    _outputs(simulate)


def _report(nouns: _Nouns) -> None:
    report = nouns.add_parser(
        "report",
        help="rebuild report.html from a run folder",
        description="Check a finished run folder and rebuild its report.html from it alone; same run, same bytes.",
        epilog=f"example:\n  migrafed report runs/first\n\n{EXIT_CODES}",
        formatter_class=_FORMAT,
    )
    report.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    _outputs(report)


def _doctor(nouns: _Nouns) -> None:
    doctor = nouns.add_parser(
        "doctor",
        help="check versions, disk, clock and data; each failure names its fix",
        description="Check this machine, and with --data the data, before a run; changes nothing, uses no network.",
        epilog=f"examples:\n  migrafed doctor\n  migrafed doctor --data ../data\n\n{EXIT_CODES}",
        formatter_class=_FORMAT,
    )
    doctor.add_argument("--data", type=Path, metavar="DIR", help="folder or Parquet file to read and check")
    _outputs(doctor)


def _audit(nouns: _Nouns) -> None:
    audit = nouns.add_parser(
        "audit",
        help="try to break the privacy mechanisms, and show that the checks would notice",
        description="Check the mechanisms that private runs use; with --mutation, also that every planted defect is "
        "caught and the correct mechanisms pass. Uses made-up data only.",
        epilog=_AUDIT,
        formatter_class=_FORMAT,
    )
    audit.add_argument("--mutation", action="store_true", help="plant every known defect and show what catches it")
    audit.add_argument(
        "--runs", type=_positive, metavar="N", help="with --mutation: runs of the correct mechanisms (10)"
    )
    audit.add_argument("--canaries", action="store_true", help="lower bounds on epsilon from made-up people")
    audit.add_argument("--attacks", action="store_true", help="membership inference and gradient inversion")
    audit.add_argument("--quick", action="store_true", help="the short form: smaller models, fewer runs")
    audit.add_argument("--out", type=Path, metavar="DIR", help="also write all results to DIR/audit.json")
    _outputs(audit)


def _holder(nouns: _Nouns) -> None:
    holder = nouns.add_parser(
        "holder",
        help="a data holder's side: check raw rows, release counts, read a privacy ledger",
        description="A data holder's side, beside its raw rows: check them, release counts of them, read the ledger.",
        epilog="examples:\n  migrafed holder check holder.toml\n  migrafed holder release holder.toml --period all\n"
        f"  migrafed holder ledger show holders/north/ledger\n\n{EXIT_CODES}",
        formatter_class=_FORMAT,
    )
    subjects = holder.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    _holder_check(subjects)
    _holder_release(subjects)
    ledger = subjects.add_parser(
        "ledger",
        help="show, verify or export the ledger of one population",
        description="The record of what was promised to the persons, spent, and released for it.",
        epilog=_LEDGER,
        formatter_class=_FORMAT,
    )
    actions = ledger.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, what in (
        ("show", "verify a ledger and list its lines, what is spent and what is left"),
        ("verify", "verify every line, signature, sum, the head and the stored releases; exit code 3 if one fails"),
        ("export", "verify a ledger and write all of it into one JSON file"),
    ):
        action = actions.add_parser(
            name, help=what, description=what[0].upper() + what[1:] + ".", epilog=_LEDGER, formatter_class=_FORMAT
        )
        action.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the ledger, or of a copy")
        action.add_argument("--public-key", metavar="HEX", help="key the holder gave you (default: the one it names)")
        action.add_argument("--witness", metavar="LENGTH:HASH", help="what was seen of it before; shows a rollback")
        if name == "export":
            action.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write; new")
        _outputs(action)


def _server(nouns: _Nouns) -> None:
    server = nouns.add_parser(
        "server",
        help="the coordinator's side: recheck what a finished run recorded",
        description="The coordinator's side of a run, for whoever coordinates it or doubts the coordinator.",
        epilog=f"examples:\n  migrafed server verify runs/first\n\n{EXIT_CODES}",
        formatter_class=_FORMAT,
    )
    subjects = server.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    verify = subjects.add_parser(
        "verify",
        help="recheck every masked sum of a finished run, and train once more from the sums",
        description="Recheck a finished run from its transcript: keys, signatures, masks, sums, rounds and the model.",
        epilog=_VERIFY,
        formatter_class=_FORMAT,
    )
    verify.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    verify.add_argument("--roster", metavar="HASH", help="hash of the roster that a holder's operator approved")
    _outputs(verify)


def _holder_check(subjects: _Nouns) -> None:
    check = subjects.add_parser(
        "check",
        help="look at a sample of the raw rows and at the settings; changes nothing",
        description="Look at a sample of the raw rows and at the settings, and say what every check found.",
        epilog=_CHECK,
        formatter_class=_FORMAT,
    )
    check.add_argument("--rows", type=_positive, default=100_000, metavar="N", help="rows of the sample (100000)")
    _holder_file(check)


def _holder_release(subjects: _Nouns) -> None:
    release = subjects.add_parser(
        "release",
        help="release steps of the counts with noise, each once, through the ledger",
        description="Count the raw rows of one or more steps, bound what a person adds, add noise, store the result.",
        epilog=_RELEASE,
        formatter_class=_FORMAT,
    )
    release.add_argument(
        "--period",
        required=True,
        metavar="P",
        help="a day of the step, two of them as A..B, or all of the ledger period",
    )
    release.add_argument("--complete", action="store_true", help="release the last step although no row is later")
    _holder_file(release)


def _holder_file(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", help="the holder's settings, a TOML file")
    command.add_argument(
        "--backend", metavar="URL", help="the holder's own engine as an Ibis URL (default: DuckDB here)"
    )
    _outputs(command)


def _outputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    command.add_argument("--debug", action="store_true", help="show the traceback of an unexpected error")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)

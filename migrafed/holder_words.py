"""The words of `migrafed holder …`. Light to import, so that --help is quick."""

from __future__ import annotations

import argparse
from pathlib import Path

from migrafed.command_words import EXIT_CODES, FORMAT, Nouns, outputs, positive
from migrafed.holder_deployment_words import add_deployment

_HOLDER = f"""\
examples, in the order in which they are needed:
  migrafed holder init north --name north --data /srv/queries --max-epsilon 2 --delta 1e-7
  migrafed holder join invitation-north.json --holder north --out joining-north.json
  migrafed holder approve plan.toml --holder north --roster roster.json
  migrafed holder check north/holder.toml
  migrafed holder agent --holder north              the trusted process: data, keys, ledgers; no network
  migrafed holder node --holder north               the other one: network; no data
  migrafed holder status --holder north
  migrafed holder outbox --holder north             what left, and what was refused
  migrafed holder revoke 3f6c9a12 --holder north

without a coordinator:
  migrafed holder release holder.toml --period all
  migrafed holder ledger show holders/north/ledger

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
  migrafed holder check north                       a holder that takes part in runs: modes, keys, policy, ledgers,
                                                    approved plans and their data, disk, connection, clock

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


def add_holder(nouns: Nouns) -> None:
    holder = nouns.add_parser(
        "holder",
        help="a data holder's side: keys and policy, approvals, agent and node, raw rows, the privacy ledger",
        description="A data holder's side, beside its raw rows: what it allows, what it runs, what left it and what is "
        "left of its budget.",
        epilog=_HOLDER,
        formatter_class=FORMAT,
    )
    subjects = holder.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    add_deployment(subjects)
    _holder_check(subjects)
    _holder_release(subjects)
    ledger = subjects.add_parser(
        "ledger",
        help="show, verify or export the ledger of one population",
        description="The record of what was promised to the persons, spent, and released for it.",
        epilog=_LEDGER,
        formatter_class=FORMAT,
    )
    actions = ledger.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, what in (
        ("show", "verify a ledger and list its lines, what is spent and what is left"),
        ("verify", "verify every line, signature, sum, the head and the stored releases; exit code 3 if one fails"),
        ("export", "verify a ledger and write all of it into one JSON file"),
    ):
        action = actions.add_parser(
            name, help=what, description=what[0].upper() + what[1:] + ".", epilog=_LEDGER, formatter_class=FORMAT
        )
        action.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the ledger, or of a copy")
        action.add_argument("--public-key", metavar="HEX", help="key the holder gave you (default: the one it names)")
        action.add_argument("--witness", metavar="LENGTH:HASH", help="what was seen of it before; shows a rollback")
        if name == "export":
            action.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file to write; new")
        outputs(action)


def _holder_check(subjects: Nouns) -> None:
    check = subjects.add_parser(
        "check",
        help="look at a sample of the raw rows and at the settings; changes nothing",
        description="Look at a sample of the raw rows and at the settings, and say what every check found.",
        epilog=_CHECK,
        formatter_class=FORMAT,
    )
    check.add_argument("--rows", type=positive, default=100_000, metavar="N", help="rows of the sample (100000)")
    _holder_file(check)


def _holder_release(subjects: Nouns) -> None:
    release = subjects.add_parser(
        "release",
        help="release steps of the counts with noise, each once, through the ledger",
        description="Count the raw rows of one or more steps, bound what a person adds, add noise, store the result.",
        epilog=_RELEASE,
        formatter_class=FORMAT,
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
    outputs(command)

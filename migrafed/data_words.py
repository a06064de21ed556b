"""The words of `migrafed data …`. Light to import, so that --help is quick."""

from __future__ import annotations

from pathlib import Path

from migrafed.command_words import EXIT_CODES, FORMAT, Nouns, outputs

_MAKE = f"""\
examples:
  migrafed data make plans/job_queries.toml --out data
  migrafed simulate data/plan.toml --data data          all holders on this machine
  migrafed holder init north --name north --data data/north …    one of them in a deployment

DIR gets a folder for each holder, complete by itself: carry it to that holder's machine. DIR/public is what the
coordinator may know. DIR/plan.toml is the plan for these files; it is another plan than PLAN, which makes up its own.

{EXIT_CODES}"""


def add_data(nouns: Nouns) -> None:
    data = nouns.add_parser(
        "data",
        help="write the made-up world of a plan as the folders of its holders",
        description="Data to try a deployment with: nobody's.",
        epilog=f"examples:\n  migrafed data make plans/job_queries.toml --out data\n\n{EXIT_CODES}",
        formatter_class=FORMAT,
    )
    subjects = data.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    make = subjects.add_parser(
        "make",
        help="write each holder's own rows, the public lists, and the plan that reads them",
        description="Write the made-up world of a plan as each holder would have it, and a plan that reads the files.",
        epilog=_MAKE,
        formatter_class=FORMAT,
    )
    make.add_argument("plan", type=Path, metavar="PLAN", help="a plan that makes up its data, a TOML file")
    make.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    make.add_argument(
        "--set", action="append", default=[], dest="settings", metavar="A.B=C", help="change one key; repeatable"
    )
    outputs(make)

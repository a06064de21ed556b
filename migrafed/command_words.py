"""What the words of all nouns of the command line share: exit codes, the parser, the options of every command."""

from __future__ import annotations

import argparse
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
FORMAT = argparse.RawDescriptionHelpFormatter


class Parser(argparse.ArgumentParser):
    """Raises instead of leaving, so that --json answers with one object even to a bad command line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see '{self.prog} --help'")


Nouns: TypeAlias = "argparse._SubParsersAction[Parser]"


def outputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    command.add_argument("--debug", action="store_true", help="show the traceback of an unexpected error")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1")
    return int(text)

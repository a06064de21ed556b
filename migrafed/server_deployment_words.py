"""The words of `migrafed server …` for a coordinator of real processes. Light to import, so that --help is quick."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from migrafed.command_words import EXIT_CODES, FORMAT, Parser, outputs, positive

if TYPE_CHECKING:
    Subjects = argparse._SubParsersAction[Parser]

_LONGEST_DAYS = 3653
_INIT = f"""\
examples:
  migrafed server init coordinator --name study --host coordinator.example.org --listen 0.0.0.0
  migrafed server init coordinator --name study --host 127.0.0.1 --port 9443 --control-port 9444

Writes server.toml, a certificate authority of its own (10 years), a certificate for the hosts and the coordinator's
signing key. Nothing is replaced, ever. Read out the fingerprint that is shown to whoever you invite.

{EXIT_CODES}"""
_CERTIFICATE = f"""\
examples:
  migrafed server certificate --server coordinator
  migrafed server certificate --server coordinator --days 90

From the same authority, for the hosts of server.toml as they are now: holders notice nothing. It is taken when the
SuperLink starts: 'migrafed server down', then 'migrafed server up'.

{EXIT_CODES}"""
_INVITE = f"""\
examples:
  migrafed server invite north --server coordinator
  migrafed server invite north --server coordinator --days 3 --out north.json

The file holds nothing secret. Send it by any way, and read out its fingerprint on the telephone: that is what makes it
trustworthy. It is answered once, with 'migrafed holder join'. A holder that changes its keys is invited again.

{EXIT_CODES}"""
_ADMIT = f"""\
examples:
  migrafed server admit joining-north.json --server coordinator
  migrafed server admit joining-north.json --server coordinator --fingerprint "3f6c 9a12 77c0 1f3a 0b2d 64e8"

Have the holder's operator read out the fingerprint on the telephone. The holder's node is registered at once where the
SuperLink runs, else when it is started. Without a terminal give --fingerprint, or --yes if it was compared before.

{EXIT_CODES}"""
_ROSTER = f"""\
examples:
  migrafed server roster plan.toml --server coordinator
  migrafed server roster plan.toml --server coordinator --out roster.json --json

Exactly the holders of the plan, with their keys, signed. Every holder's operator gets plan and roster, compares the
fingerprints, and approves both with 'migrafed holder approve PLAN --roster FILE'.

{EXIT_CODES}"""
_REMOVE = f"""\
examples:
  migrafed server remove north --server coordinator

Its node is shut out at once where the SuperLink runs, else when it is started, and its node key never works again:
to come back it is invited again and joins with --new-keys. Rosters with it stay what they were; make new ones.

{EXIT_CODES}"""
_UP = """\
examples:
  migrafed server up --server coordinator            in front, until Ctrl-C; for a service manager
  migrafed server up --server coordinator --detach   behind; returns when the SuperLink answers

Starts the SuperLink, starts it again when it ends, and registers the nodes of members. Holders reach one port, which
answers nothing else; starting runs and registering nodes is possible from this machine alone.

exit codes:
  0  stopped on request; with --detach: it answers
  1  failed: a port is in use, it runs already, or it does not come up
  2  bad input: settings, keys, certificates or file modes; nothing was started
"""
_MEMBERS = f"""\
examples:
  migrafed server members --server coordinator
  migrafed server members --server coordinator --json | jq '.members[] | .holder, .fingerprint'

{EXIT_CODES}"""
_DOWN = f"""\
examples:
  migrafed server down --server coordinator

Runs under way stop, and go on with 'migrafed server resume'. Exit code 0 too if no SuperLink was running.

{EXIT_CODES}"""
_STATUS = f"""\
examples:
  migrafed server status --server coordinator
  migrafed server status --server coordinator --watch          a live table, until Ctrl-C
  migrafed server status --server coordinator --json | jq '.members[] | select(.online | not) | .holder'

{EXIT_CODES}"""


def add_deployment(subjects: Subjects) -> None:
    """Everything but runs."""
    _init(subjects)
    certificate = _subject(
        subjects, "certificate", "issue a new certificate from the same authority", epilog=_CERTIFICATE
    )
    certificate.add_argument("--days", type=_days, metavar="N", help="how long it is valid (397)")
    _invite(subjects)
    admit = _subject(subjects, "admit", "take in the keys of a holder that answers an invitation", epilog=_ADMIT)
    admit.add_argument("file", type=Path, metavar="JOINING", help="the holder's answer")
    admit.add_argument("--fingerprint", metavar="F", help="what its operator read out; refused if it is another")
    admit.add_argument("--yes", action="store_true", help="the fingerprint was compared before")
    _subject(subjects, "members", "list who was invited and who is in, with fingerprints", epilog=_MEMBERS)
    roster = _subject(subjects, "roster", "write the signed roster of a plan's holders", epilog=_ROSTER)
    roster.add_argument("plan", type=Path, metavar="PLAN", help="the plan, a TOML file")
    roster.add_argument("--out", type=Path, default=Path("roster.json"), metavar="FILE", help="new (roster.json)")
    remove = _subject(subjects, "remove", "shut out a holder, and forget it", epilog=_REMOVE)
    remove.add_argument("holder", metavar="HOLDER", help="its name")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    up = _subject(subjects, "up", "start the SuperLink and watch over it", epilog=_UP)
    up.add_argument("--detach", action="store_true", help="return when it answers, and leave it running")
    _subject(subjects, "down", "end the SuperLink", epilog=_DOWN)
    status = _subject(subjects, "status", "the SuperLink, members and runs, in a table", epilog=_STATUS)
    status.add_argument("--watch", action="store_true", help="again every two seconds, until Ctrl-C")


def server_folder(command: argparse.ArgumentParser) -> None:
    """The option that every subject of a coordinator has."""
    command.add_argument(
        "--server", type=Path, default=Path(), metavar="DIR", help="the coordinator's folder (default: here)"
    )


def _days(text: str) -> int:
    if (days := positive(text)) > _LONGEST_DAYS:
        raise argparse.ArgumentTypeError(f"'{text[:40]}' is above {_LONGEST_DAYS}, the days that the authority lasts")
    return days


def _init(subjects: Subjects) -> None:
    init = subjects.add_parser(
        "init",
        help="make the folder of a coordinator: settings, certificate authority, keys",
        description="Make the folder of a coordinator: settings, certificate authority, keys.",
        epilog=_INIT,
        formatter_class=FORMAT,
    )
    init.add_argument("folder", type=Path, metavar="DIR", help="new, or empty")
    init.add_argument("--name", required=True, help="of the federation: small letters, digits, - and _")
    init.add_argument(
        "--host", action="append", required=True, dest="hosts", metavar="H",
        help="name or address that holders reach it at; repeatable, the first stands in invitations",
    )  # fmt: skip
    init.add_argument("--listen", default="127.0.0.1", metavar="A", help="address to listen at (127.0.0.1)")
    init.add_argument("--port", type=positive, default=9443, metavar="P", help="for holders (9443)")
    init.add_argument("--control-port", type=positive, default=9444, metavar="P", help="on 127.0.0.1 only (9444)")
    init.add_argument("--days", type=_days, metavar="N", help="how long the certificate is valid (397)")
    outputs(init)


def _invite(subjects: Subjects) -> None:
    invite = _subject(subjects, "invite", "write an invitation for one holder", epilog=_INVITE)
    invite.add_argument("holder", metavar="HOLDER", help="the name that it has in plans")
    invite.add_argument("--out", type=Path, metavar="FILE", help="new (invitation-HOLDER.json)")
    invite.add_argument("--days", type=positive, default=14, metavar="N", help="how long it is valid (14)")
    invite.add_argument(
        "--address", metavar="HOST:PORT", help="where this holder reaches the coordinator (the first host, the port)"
    )


def _subject(subjects: Subjects, name: str, what: str, *, epilog: str) -> Parser:
    command = subjects.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + ".", epilog=epilog, formatter_class=FORMAT
    )
    server_folder(command)
    outputs(command)
    return command

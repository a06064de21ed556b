"""The words of `migrafed holder …` for taking part in runs of real processes. Light to import."""

from __future__ import annotations

import argparse
from pathlib import Path

from migrafed.command_words import EXIT_CODES, FORMAT, Nouns, outputs, positive

_INIT = f"""\
examples:
  migrafed holder init north --name north --data /srv/queries --max-epsilon 2 --delta 1e-7
  migrafed holder init north --name north --data north/data --max-epsilon 2 --delta 1e-7 --node-user migrafed-node
  migrafed holder init north                        asks for the rest, at a terminal

Writes holder.toml and two keys: keys/identity.key.pem signs for the holder in masked sums, keys/node.key signs what the
node sends. Nothing is replaced, ever. The policy ([privacy]) is yours: read it and change it before you approve a plan.

{EXIT_CODES}"""
_JOIN = f"""\
examples:
  migrafed holder join invitation-north.json --holder north --out joining-north.json
  migrafed holder join invitation-north.json --holder north --out joining-north.json --fingerprint 1f3a-77c0-…

Shows the coordinator's fingerprint: compare it with what its operator says on the telephone, not in the mail that
brought the file. Then send the file that is written, and read out your own fingerprint. Nothing is sent from here.
Without a terminal give --fingerprint, or --yes if it was compared before.

A holder changes its keys by joining again, with a new invitation and --new-keys; the old ones stay beside them, named
*.old, until you delete them. Agent and node take the new ones when they are started again.

{EXIT_CODES}"""
_APPROVE = f"""\
examples:
  migrafed holder approve plan.toml --holder north --roster roster.json
  migrafed holder approve plan.toml --holder north --roster roster.json --hash 3f6c…   without a terminal
  migrafed holder approve plan.toml --holder north --show                              the page alone

Says on one page who asks, what is read, what it costs, what leaves and who gets it; then asks. What is approved is the
plan's hash together with the roster's. Exit code 3 if you say no, or if your policy or your ledger would refuse it.

{EXIT_CODES}"""
_REVOKE = f"""\
examples:
  migrafed holder revoke 3f6c9a12 --holder north
  migrafed holder revoke all --holder north

Holds from the next message on, also in a run that is under way. What was released before stays released and charged.

{EXIT_CODES}"""
_DAEMON_CODES = """\
exit codes:
  0  stopped on request (Ctrl-C, or TERM from a service manager), after the message at hand
  1  failed: another one runs already, the disk is full, or an unexpected error
  2  bad input: settings, keys or file modes; nothing was started
  3  refused: a ledger cannot be trusted
  4  stopped on request before it was ready
"""
_AGENT = f"""\
examples:
  migrafed holder agent --holder north
  systemctl start migrafed-agent                    see deploy/systemd

The trusted process: it alone opens data, keys and ledgers. It listens on a Unix socket, never on a network.

{_DAEMON_CODES}"""
_NODE = f"""\
examples:
  migrafed holder node --holder north
  systemctl start migrafed-node                     see deploy/systemd

The untrusted process: a Flower SuperNode that connects out to the coordinator, and the executor that hands messages to
the agent. Code that a coordinator ships is never run. An unreachable coordinator is waited for.

{_DAEMON_CODES}"""
_STATUS = f"""\
examples:
  migrafed holder status --holder north
  migrafed holder status --holder north --json | jq .agent

Exit code 1 if the agent does not answer.

{EXIT_CODES}"""
_OUTBOX = f"""\
examples:
  migrafed holder outbox --holder north             the last 20 things that left, and refusals
  migrafed holder outbox --holder north --refusal 7
  migrafed holder outbox --holder north --last 1000 --run 3f6c --json

Every message that left stands there, with its kind, size and hash, written to the disk before it left; every refusal
with its whole reason, of which the coordinator got a code and the number. Exit code 1 if the log was changed.

{EXIT_CODES}"""


def add_deployment(subjects: Nouns) -> None:
    """Add the subjects of a holder that takes part in runs."""
    _init(subjects)
    join = _subject(
        subjects, "join", "take a coordinator's invitation, write what it needs to know of this holder", _JOIN
    )
    join.add_argument("invitation", type=Path, metavar="INVITATION", help="file from the coordinator's operator")
    join.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to send back; new")
    join.add_argument("--fingerprint", metavar="F", help="the coordinator's, as its operator told you")
    join.add_argument("--yes", action="store_true", help="the fingerprint was compared")
    join.add_argument("--new-keys", action="store_true", help="draw both keys anew first; all approvals are void then")
    _approve(subjects)
    revoke = _subject(subjects, "revoke", "withdraw the approval of a plan; holds at once", _REVOKE)
    revoke.add_argument("hash", metavar="HASH", help="the plan's hash or the beginning of it; 'all' for every plan")
    _subject(subjects, "agent", "run the trusted process: data, keys, ledgers; no network", _AGENT)
    _subject(subjects, "node", "run the SuperNode and its executor: network; no data", _NODE)
    status = _subject(subjects, "status", "what agent, node, ledgers and approvals are doing", _STATUS)
    status.add_argument("--timeout", type=positive, default=5, metavar="S", help="seconds to wait for the agent (5)")
    outbox = _subject(subjects, "outbox", "what left this holder, and what was refused", _OUTBOX)
    outbox.add_argument("--last", type=positive, default=20, metavar="N", help="how many lines (20)")
    outbox.add_argument("--run", metavar="RUN", help="of one run only; the beginning of its name is enough")
    outbox.add_argument("--refusal", type=positive, metavar="NUMBER", help="the whole of one refusal")


def _subject(subjects: Nouns, name: str, what: str, epilog: str) -> argparse.ArgumentParser:
    command = subjects.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + ".", epilog=epilog, formatter_class=FORMAT
    )
    command.add_argument(
        "--holder", type=Path, default=Path("holder.toml"), metavar="PATH",
        help="the holder's settings, or their folder (default: holder.toml here)",
    )  # fmt: skip
    outputs(command)
    return command


def _init(subjects: Nouns) -> None:
    init = subjects.add_parser(
        "init",
        help="make a holder's folder: settings, policy and keys",
        description="Make a holder's folder: settings, policy and keys.",
        epilog=_INIT,
        formatter_class=FORMAT,
    )
    init.add_argument("folder", type=Path, metavar="DIR", help="folder to make, or one without settings and keys")
    init.add_argument("--name", help="the holder's name in plans and in the roster")
    init.add_argument("--data", type=Path, metavar="DIR", help="where its rows lie")
    init.add_argument("--max-epsilon", metavar="E", help="the most that one person may be charged in the period")
    init.add_argument("--delta", metavar="D", help="failure probability that goes with it; below 1 / persons")
    init.add_argument("--population", metavar="TEXT", help="whose records they are (people)")
    init.add_argument("--population-size", type=positive, metavar="N", help="persons; checks --delta")
    init.add_argument("--period", metavar="TEXT", help="the time span that the budget covers (this year)")
    init.add_argument("--contributions", type=positive, default=10, metavar="K", help="most cells of a person (10)")
    init.add_argument(
        "--least-noise-multiplier", default="0.5", metavar="S", help="least noise, over sensitivity (0.5)"
    )
    init.add_argument("--clip-norm", default="1.0", metavar="C", help="largest gradient norm of one example (1)")
    init.add_argument(
        "--allow", nargs="+", choices=("secure", "robust", "plain"), default=["secure"], metavar="PROMISE",
        help="how what is sent may be added up: secure (default), robust, plain",
    )  # fmt: skip
    init.add_argument(
        "--pushes", choices=("none", "private", "threshold"), default="none",
        help="what other operators may be told of contacts (none)",
    )  # fmt: skip
    init.add_argument("--made-up", action="store_true", help="the records are synthetic: nobody's")
    init.add_argument("--node-user", metavar="USER", help="system user that the node runs as (default: this one)")
    init.add_argument("--node-port", type=positive, metavar="PORT", help="on 127.0.0.1, for the node alone (9094)")
    outputs(init)


def _approve(subjects: Nouns) -> None:
    approve = _subject(
        subjects, "approve", "read on one page what a plan does here, and approve it by its hash", _APPROVE
    )
    approve.add_argument("plan", type=Path, metavar="PLAN", help="the plan, a TOML file")
    approve.add_argument("--roster", type=Path, metavar="FILE", help="the members' keys, signed by the coordinator")
    approve.add_argument(
        "--hash", metavar="HEX", help="approve if the plan has this hash: the answer without a terminal"
    )
    approve.add_argument("--yes", action="store_true", help="approve without being asked")
    approve.add_argument("--show", action="store_true", help="print the page and change nothing")

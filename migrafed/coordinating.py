"""What commands of a coordinator share: its folder, the SuperLink if it runs, fingerprints."""

from __future__ import annotations

import argparse

from migrafed.questions import Questions
from protocol.errors import MigrafedError, NotApprovedError
from server.link import supervisor
from server.link.control import Control
from server.members import Members
from server.settings import ServerPlace


def register(place: ServerPlace) -> list[str] | None:
    """Register members and shut out who left, if the SuperLink runs; what went wrong, None if it does not run."""
    if not supervisor.state(place).running:
        return None
    try:
        with Control(place) as control:
            return Members(place).register(control)
    except MigrafedError as error:
        return [str(error)]


def compare(options: argparse.Namespace, fingerprint: str, *, whose: str) -> None:
    """Have a person say that a fingerprint is what was read out.

    Raises:
        NotApprovedError: it is not, or nobody says so.
        InputError: there is nobody to ask, and neither flag.
    """
    if options.fingerprint is not None:
        if _digits(options.fingerprint) != _digits(fingerprint):
            raise NotApprovedError(
                f"the file has fingerprint {fingerprint} and you were told '{options.fingerprint[:60]}': it is not the "
                "one that was sent, or was changed on the way; nothing was taken from it, ask for it again"
            )
        return
    question = f"Does the operator of {whose} read out {fingerprint}?"
    if not options.yes and not Questions(as_json=options.json).agreed(question, flag="--fingerprint"):
        raise NotApprovedError("the fingerprint was not confirmed, so nothing was taken from the file; call and ask")


def _digits(fingerprint: str) -> str:
    return "".join(letter for letter in fingerprint.lower() if letter.isalnum())

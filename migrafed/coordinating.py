"""What commands of a coordinator share: its folder, the SuperLink if it runs, files for others, fingerprints."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from migrafed.questions import Questions
from protocol.errors import InputError, MigrafedError, NotApprovedError
from server.link import supervisor
from server.link.control import Control
from server.members import Members
from server.settings import ServerPlace

PUBLIC_MODE = 0o644


def register(place: ServerPlace) -> list[str] | None:
    """Register members and shut out who left, if the SuperLink runs; what went wrong, None if it does not run."""
    if not supervisor.state(place).running:
        return None
    try:
        with Control(place) as control:
            return Members(place).register(control)
    except MigrafedError as error:
        return [str(error)]


def write_new(path: Path, content: bytes) -> None:
    """Write a file that others get; never over another.

    Raises:
        InputError: something is there, or it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PUBLIC_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except FileExistsError:
        raise InputError(f"{path} exists, and nothing is overwritten; give --out a new file") from None
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}); give --out another file") from None


def check_absent(path: Path) -> None:
    """Refuse before anything is changed what `write_new` would refuse afterwards.

    Raises:
        InputError: something is there, or there is no such folder.
    """
    if path.exists():
        raise InputError(f"{path} exists, and nothing is overwritten; give --out a new file")
    if not path.absolute().parent.is_dir():
        raise InputError(f"there is no folder {path.absolute().parent}; make it, or give --out another file")


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

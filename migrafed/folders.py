"""Folders that somebody names on the command line."""

from __future__ import annotations

from pathlib import Path

from protocol.errors import InputError


def given_folder(path: Path, *, what: str) -> Path:
    """A folder that this user may look into; one that is not there is for its reader to speak of.

    Raises:
        InputError: it may not be looked into, or its name is too long.
    """
    try:
        next(path.iterdir(), None)
    except (FileNotFoundError, NotADirectoryError):
        return path
    except OSError as error:
        raise InputError(
            f"cannot open {str(path)[:300]} ({error.strerror}); give {what}, as a user who may read it"
        ) from None
    return path

"""The coordinator's folder: its settings, its authority and keys; for its own user only (0700).

::

    place = make_server(Path("coordinator"), settings)       # server.toml, keys/, public/, runs/, logs/

What is there already is never replaced: holders trust these keys.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import tomli_w

from protocol.errors import PlanError
from protocol.files import write_whole
from server.link import authority
from server.settings import LOGS, RUNS, SETTINGS_FILE, ServerFile, ServerPlace

_ABOUT = {
    "server": "who this is and where it listens; the control port is on 127.0.0.1 only",
    "patience": "with holders that are slow or away, in seconds",
}


def make_server(folder: Path, settings: ServerFile, *, days: int = authority.CERTIFICATE_DAYS) -> ServerPlace:
    """Make the folder of a new coordinator.

    Args:
        folder: New, or empty.
        settings: Who it is and where it listens.
        days: How long its certificate is valid.

    Raises:
        PlanError: something is there already, a host is no host, or the folder cannot be made.
        StorageError: the disk refuses; nothing is left behind.
    """
    place = ServerPlace(settings, folder.absolute())
    made = not folder.exists()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            broken = "" if (folder / SETTINGS_FILE).exists() else (
                f", or remove it if an 'init' that was broken off left it ({SETTINGS_FILE} is missing)"
            )  # fmt: skip
            raise PlanError(
                f"{folder} is not empty, and keys and settings are never replaced; choose a new folder{broken}"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise PlanError(f"{folder} cannot be made ({error.strerror}); choose another place") from None
    try:
        authority.create(place)
        authority.issue(place, days)
        for own in (place.public, place.own(RUNS), place.own(LOGS)):
            own.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(place.own(SETTINGS_FILE), lambda part: _write(part, settings_text(settings)))  # now it is complete
    except BaseException as error:
        _empty(folder, whole=made)
        if isinstance(error, OSError):
            raise PlanError(f"{folder} cannot be filled ({error.strerror}); choose another place") from None
        raise
    return place


def settings_text(settings: ServerFile) -> str:
    """The TOML of a coordinator's settings, every value said."""
    values = settings.model_dump(mode="json")
    return "\n".join(f"# {about}\n{tomli_w.dumps({name: values[name]})}" for name, about in _ABOUT.items())


def _write(part: Path, text: str) -> None:
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(text.encode())


def _empty(folder: Path, *, whole: bool) -> None:
    """Take away what was begun in a folder that was empty."""
    if whole:
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

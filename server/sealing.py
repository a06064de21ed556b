"""The seal of a run folder: `run.json`, written last, with the SHA-256 of every file that belongs to the run.

So a folder with a valid `run.json` is a finished run, and one changed byte is noticed, whatever the task was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from privacy.card import PrivacyCard
from protocol.errors import RunFolderError
from protocol.files import write_whole
from server.run_folder import CARD_FILE, FACTS_FILE

DAMAGED = "the run folder is damaged"
DEPLOYED = "deployed"
"""Kind of a run whose holders were elsewhere, in its `run.json`."""


class Facts(Protocol):
    """What the seal needs of the facts of a run."""

    @property
    def files(self) -> dict[str, str]:
        """File → SHA-256."""
        ...


AnyFacts = TypeVar("AnyFacts", bound=BaseModel)


def require_files(folder: Path, names: Sequence[str]) -> None:
    """Refuse to seal a folder that lacks files of its run.

    Raises:
        RunFolderError: one is missing.
    """
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise RunFolderError(f"{folder} has no {' and no '.join(missing)}; write them before the run is sealed")


def seal(folder: Path, facts: BaseModel, card: PrivacyCard, names: Sequence[str]) -> None:
    """Write the card, then `run.json` with the digest of each named file; nothing without `run.json` is finished."""
    write_whole(folder / CARD_FILE, lambda path: path.write_text(card.to_json(), encoding="utf-8", newline="\n"))
    sealed = facts.model_copy(update={"files": {name: digest(folder / name) for name in names}})
    text = json.dumps(sealed.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_whole(folder / FACTS_FILE, lambda path: path.write_text(text, encoding="utf-8", newline="\n"))


def task_of(folder: Path) -> str:
    """The task of a finished run, from its `run.json` alone.

    Raises:
        RunFolderError: no folder, not finished, or no facts of a run.
    """
    task = _told(folder).get("task")
    if not isinstance(task, str):
        raise RunFolderError(f"{folder / FACTS_FILE} names no task; {DAMAGED} or from another version")
    return task


def is_deployed(folder: Path) -> bool:
    """Whether the holders of a finished run were elsewhere, from its `run.json` alone.

    Raises:
        RunFolderError: see `task_of`.
    """
    return _told(folder).get("kind") == DEPLOYED


def sealed_digests(folder: Path) -> dict[str, str]:
    """File -> SHA-256, as `run.json` has it.

    Raises:
        RunFolderError: see `task_of`, or it names no files.
    """
    files = _told(folder).get("files")
    if not isinstance(files, Mapping):
        raise RunFolderError(f"{folder / FACTS_FILE} names no files; {DAMAGED} or from another version")
    return {str(name): str(value) for name, value in files.items()}


def _told(folder: Path) -> Mapping[str, object]:
    path = _facts_file(folder)
    try:
        facts = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunFolderError(f"{path} is no JSON; {DAMAGED} or from another version") from error
    return facts if isinstance(facts, Mapping) else {}


def read_facts(folder: Path, kind: type[AnyFacts]) -> AnyFacts:
    """The facts of a finished run.

    Raises:
        RunFolderError: no folder, not finished, or facts of another kind or version.
    """
    path = _facts_file(folder)
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file as a whole"
        raise RunFolderError(f"{path}: {where}: {first['msg']}; {DAMAGED} or from another version") from error


def _facts_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not a folder; give the run folder that was printed at the end of the run")
    path = folder / FACTS_FILE
    if not path.is_file():
        way_out = f"resume it with 'migrafed simulate PLAN --resume {folder}', or 'migrafed server resume {folder}'"
        raise RunFolderError(f"{folder} has no {FACTS_FILE}: the run is not finished; {way_out}")
    return path


def check_seals(folder: Path, names: Sequence[str], facts: Facts) -> None:
    """Compare files with what the run wrote.

    Raises:
        RunFolderError: a file is missing, was not sealed, or differs.
    """
    for name in names:
        path = folder / name
        if not path.is_file():
            raise RunFolderError(
                f"{folder} has no {name}; copy the whole run folder, or run the plan again into a new one"
            )
        if facts.files.get(name) != digest(path):
            raise RunFolderError(f"{path} differs from what the run wrote (SHA-256); copy the run folder again")


def read_card(folder: Path) -> PrivacyCard:
    """The privacy card of a run.

    Raises:
        RunFolderError: it is no card of this version.
    """
    try:
        return PrivacyCard.from_json((folder / CARD_FILE).read_text(encoding="utf-8"))
    except ValueError:
        raise RunFolderError(f"{folder / CARD_FILE} is no card of this version; {DAMAGED}") from None


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

"""The folder of a run: made new for each run, never overwritten, locked while a process works in it."""

from __future__ import annotations

import fcntl
import importlib.metadata
import logging
import os
import platform
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from protocol.errors import RunFolderError
from protocol.files import write_whole
from protocol.plan import Plan, parse_plan
from protocol.stages import run_name

PLAN_FILE, MODEL_FILE, CARD_FILE, FACTS_FILE = "plan.lock.toml", "model.safetensors", "card.json", "run.json"
JOURNAL_FILE, ENVIRONMENT_FILE, LOCK_FILE, LOG_FILE = "journal.sqlite", "env.txt", ".lock", "run.log"
REPORT_FILE = "report.html"
_PACKAGES = ("flwr", "torch", "torch-geometric", "numpy", "scipy", "pandas", "scikit-learn", "lightgbm", "holidays")


@dataclass(frozen=True)
class RunSummary:
    """What `simulate` hands to the command line."""

    folder: Path
    run: str
    plan_hash: str
    seconds: float


def new_folder(plan: Plan, out: Path | None) -> Path:
    """Make the folder of a new run and lock the plan into it.

    Raises:
        RunFolderError: the folder exists and is not empty, or cannot be made.
    """
    folder = out if out is not None else Path("runs") / run_name(plan)
    if folder.exists() and not (folder.is_dir() and _never_became_a_run(folder)):
        raise RunFolderError(
            f"{folder} already holds something; choose another --out, or continue that run with --resume {folder}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"cannot make {folder} ({error.strerror}); choose another --out") from None
    environment = "".join(f"{name}=={version}\n" for name, version in versions().items())
    write_whole(folder / ENVIRONMENT_FILE, lambda path: path.write_text(environment, encoding="utf-8"))
    text = plan_text(plan)
    write_whole(folder / PLAN_FILE, lambda path: path.write_text(text, encoding="utf-8"))  # last: now it is a run
    return folder


def _never_became_a_run(folder: Path) -> bool:
    """Whether a folder is empty, or a process that was killed left no more than the beginnings of one."""
    beginnings = {ENVIRONMENT_FILE, LOCK_FILE, f".{ENVIRONMENT_FILE}.part", f".{PLAN_FILE}.part"}
    return all(path.name in beginnings for path in folder.iterdir())


def resumed_folder(plan: Plan, folder: Path) -> Path:
    """Check that a folder holds an unfinished run of this plan.

    Raises:
        RunFolderError: no run there, another plan's run, or a finished one.
    """
    if not (folder / PLAN_FILE).is_file():
        raise RunFolderError(f"{folder} holds no run ({PLAN_FILE} is missing); start it without --resume")
    locked = locked_plan(folder)
    if locked.digest() != plan.digest():
        raise RunFolderError(
            f"{folder} holds a run of plan {locked.digest()[:12]}, this plan is {plan.digest()[:12]}; "
            f"resume with {folder / PLAN_FILE}, or start a new run"
        )
    if (folder / FACTS_FILE).is_file():
        raise RunFolderError(f"{folder} holds a finished run; nothing is left to resume, see its report.html")
    return folder


def locked_plan(folder: Path) -> Plan:
    """The plan that a run folder was made for."""
    try:
        return parse_plan(tomllib.loads((folder / PLAN_FILE).read_text(encoding="utf-8")), where=PLAN_FILE)
    except OSError as error:
        raise RunFolderError(
            f"{folder} holds no run: {PLAN_FILE} cannot be read ({error.strerror}); give the folder of a run"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RunFolderError(f"{folder / PLAN_FILE} is damaged ({error}); start a new run") from None


def plan_text(plan: Plan) -> str:
    """The plan as a TOML file that gives the same plan again."""
    return tomli_w.dumps(_without_none(plan.model_dump(mode="json")))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; a second process on the same run is refused.

    Raises:
        RunFolderError: another process works in the folder.
    """
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(f"another process works in {folder}; wait for it or choose another --out") from None
        yield
    finally:
        os.close(descriptor)


def versions() -> dict[str, str]:
    """Versions of the interpreter, this toolkit and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in ("migrafed", *_PACKAGES):
        found[package] = importlib.metadata.version(package)
    return found


def _without_none(value: Any) -> Any:
    """TOML has no null: an absent key means the same."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


@contextmanager
def flower_log(folder: Path) -> Iterator[None]:
    """Flower's own log lines go to the run's log file, not to the terminal."""
    logger = logging.getLogger("flwr")
    handler = logging.FileHandler(folder / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    kept, propagate = list(logger.handlers), logger.propagate
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        handler.close()
        logger.handlers, logger.propagate = kept, propagate

"""The folder of a run: new, whole, locked, and telling what it was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.errors import RunFolderError
from server.run_folder import ENVIRONMENT_FILE, PLAN_FILE, locked, locked_plan, new_folder, run_name
from tests.plans import tiny_plan


def test_locked_plan_has_the_same_digest(tmp_path: Path) -> None:
    """Dates, absent values, nested tables and floats come back from the lock as they went in."""
    plan = tiny_plan({"data.world.start": "2018-01-01", "model.huber": None, "training.learning_rate": 0.1 + 0.2})
    assert locked_plan(new_folder(plan, tmp_path / "run")).digest() == plan.digest()


def test_default_folder_is_named_after_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = tiny_plan()
    assert new_folder(plan, None) == Path("runs") / run_name(plan)
    assert run_name(plan) == f"tiny-s3-{plan.digest()[:8]}"
    with pytest.raises(RunFolderError, match="already holds something"):
        new_folder(plan, None)


def test_environment_is_written(tmp_path: Path) -> None:
    lines = (new_folder(tiny_plan(), tmp_path / "run") / ENVIRONMENT_FILE).read_text(encoding="utf-8").splitlines()
    assert {line.split("==")[0] for line in lines} >= {"python", "migrafed", "torch", "flwr", "numpy"}


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    assert (new_folder(tiny_plan(), tmp_path) / PLAN_FILE).is_file()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RunFolderError, match="another process"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    "left", [[ENVIRONMENT_FILE], [ENVIRONMENT_FILE, f".{PLAN_FILE}.part"], [f".{ENVIRONMENT_FILE}.part"]]
)
def test_folder_that_a_killed_process_only_began_is_taken(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_text("cut sho")
    plan = tiny_plan()
    assert locked_plan(new_folder(plan, tmp_path)).digest() == plan.digest()


def test_folder_with_anything_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / ENVIRONMENT_FILE).write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="already holds something"):
        new_folder(tiny_plan(), tmp_path)

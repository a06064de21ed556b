"""What is shipped: exactly the packages meant to be in the wheel, with every file they read."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"protocol", "tables", "dhgsil", "integration", "privacy", "clients", "server", "simulations", "migrafed"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built offline with the backend installed in this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


@pytest.mark.slow
def test_wheel_holds_exactly_our_packages(wheel: zipfile.ZipFile) -> None:
    """No tests, no docs, no runs: short names must not reach an environment by accident. Plans go under share/."""
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert top >= PACKAGES
    assert {Path(name).suffix for name in top - PACKAGES} == {".dist-info", ".data"}
    plans = {path.name for path in (ROOT / "plans").glob("*.toml")}
    assert {Path(name).name for name in wheel.namelist() if ".data/data/share/migrafed/plans/" in name} == plans


@pytest.mark.slow
def test_wheel_holds_every_tracked_file_of_a_package(wheel: zipfile.ZipFile) -> None:
    """Templates, styles and plans travel with the code that reads them."""
    listed = subprocess.run(
        ["git", "ls-files", *sorted(PACKAGES)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so there is no list of tracked files")
    assert set(listed.stdout.split()) <= set(wheel.namelist())


@pytest.mark.slow
def test_wheel_carries_licence_and_command(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "migrafed = migrafed.__main__:main" in wheel.read(entry_points).decode()


def test_no_dependency_is_unbounded() -> None:
    """Every requirement has a lower and an upper bound, in every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    assert not [line for line in project["dependencies"] + extras if ">=" not in line or "<" not in line.split(">=")[1]]

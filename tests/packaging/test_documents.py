"""Commands, links and code in the documents are those of this tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.compile(r"(?:^\$ |`)((?:make|migrafed) [^#`\n]+)", re.MULTILINE)


def commands(program: str) -> list[str]:
    """Commands of one program that any document shows, without placeholders such as RUN."""
    found = {match.strip() for path in DOCUMENTS for match in COMMAND.findall(path.read_text(encoding="utf-8"))}
    return sorted(command for command in found if command.split()[0] == program and not command.split()[1].isupper())


@pytest.mark.parametrize("command", commands("make"))
def test_make_targets_in_documents_exist(command: str) -> None:
    arguments = [word for word in command.split()[1:] if "=" not in word and not word.startswith("<")]
    listed = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stderr


@pytest.mark.parametrize("verb", sorted({command.split()[1] for command in commands("migrafed")}))
def test_subcommands_in_documents_exist(verb: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "migrafed", verb, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert verb in shown.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://"))]
    assert not [link for link in local if not (path.parent / link).exists()]


def tour() -> list[str]:
    """The `migrafed` commands of the README's tour, in order."""
    block = README.split("## A tour", 1)[1].split("```console", 1)[1].split("```", 1)[0]
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line.startswith("migrafed ")]


@pytest.mark.slow
def test_the_tour_of_the_readme_runs(tmp_path: Path) -> None:
    """Every command of the tour, as printed, one after the other in an empty folder: each ends well and says so."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert len(tour()) >= 4
    for command in tour():
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": programs},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "SUCCESS" in done.stdout + done.stderr, command
    assert (tmp_path / "runs" / "first" / "report.html").is_file()
    assert (tmp_path / "runs" / "second" / "report.html").is_file()


def test_python_in_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        subprocess.run([sys.executable, "-c", block], cwd=ROOT, check=True)


def test_ci_script_can_be_started() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0

"""House rules that a linter does not know: sizes, names, and words that have no place in the source."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("protocol", "tables", "dhgsil", "integration", "privacy", "clients", "server", "simulations", "migrafed")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TEXTS = sorted({*MODULES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.py")})
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}
# Joined here, so that this file does not hold the words it looks for.
UNFINISHED = re.compile(
    r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "raise NotImplemented" + "Error"]) + r")\b"
)
CLAIMS = re.compile(r"\banonym" + r"(ous|ised|ized)\b", re.IGNORECASE)
MACHINE_PATHS = re.compile(r"/(?:wor" + r"k|roo" + r"t|tm" + r"p)/\w")


def where(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def declared(group: str | None = None) -> set[str]:
    """Distributions that pyproject.toml asks for, in one extra or always."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"][group] if group else project["dependencies"]
    return {re.split(r"[\[<>=!~ ;]", line, maxsplit=1)[0].lower().replace("_", "-") for line in wanted}


BOUNDED = {"duckdb", "sqlglot"}
"""What ibis brings along, declared for its upper bound."""


def test_import_contracts_hold() -> None:
    """The layers, and the few places that touch Flower: every contract of pyproject.toml is kept."""
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_modules_stay_small() -> None:
    """Nothing over 400 lines, the median module at most 150."""
    sizes = {where(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {path: size for path, size in sizes.items() if size > 400}
    assert statistics.median(size for size in sizes.values() if size) <= 150


def test_no_assert_in_source() -> None:
    """A check must not vanish under `python -O`."""
    found = [
        f"{where(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert not found


def test_modules_are_named_after_what_they_hold() -> None:
    named = {where(path): BANNED_NAMES & {path.stem, *path.stem.split("_"), *path.parent.parts} for path in MODULES}
    assert not {path: names for path, names in named.items() if names}


def test_packages_have_an_empty_init() -> None:
    """Importing a package must cost nothing and have no effect."""
    folders = {path.parent for path in MODULES}
    assert not [where(folder) for folder in folders if not (folder / "__init__.py").is_file()]
    assert not [where(path) for path in MODULES if path.name == "__init__.py" and path.read_text(encoding="utf-8")]
    assert not [where(path) for path in (ROOT / "tests").rglob("__init__.py")]


@pytest.mark.parametrize(
    ("pattern", "rule"),
    [
        (UNFINISHED, "finish it, or say in an issue what is missing"),
        (CLAIMS, "say what was tried and what it found instead"),
        (MACHINE_PATHS, "no path of one machine belongs in the tree"),
    ],
    ids=["unfinished", "claims", "paths"],
)
def test_no_forbidden_words(pattern: re.Pattern[str], rule: str) -> None:
    found = [
        f"{where(path)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found, rule


def test_every_import_is_declared() -> None:
    """What the source imports, pyproject.toml asks for; what it asks for, the source imports."""
    own = set(PACKAGES) | set(sys.stdlib_module_names)
    third_party = {name for path in MODULES for name in imported(path)} - own
    providers = packages_distributions()
    used = {provider.lower().replace("_", "-") for name in third_party for provider in providers.get(name, [name])}
    assert used <= declared() | declared("ray") | declared("spark")
    assert declared() <= used | BOUNDED


@pytest.mark.slow
def test_science_can_be_imported_without_flower() -> None:
    """A researcher uses the forecaster as a library; Flower takes seconds to load and is not needed for it."""
    modules = [
        where(path).removesuffix(".py").replace("/", ".") for path in MODULES if path.is_relative_to(ROOT / "dhgsil")
    ]
    code = f"import importlib, sys; [importlib.import_module(m) for m in {modules!r}]; sys.exit('flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

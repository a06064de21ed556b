"""What `migrafed doctor` looks at: each check is a function that returns what it found and, if it failed, the fix."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

_PACKAGE = "migrafed"
_LOADED = ("torch", "flwr", "torch_geometric", "lightgbm")
_GIGABYTE = 10**9
_DISK, _TEMPORARY, _MEMORY = 2 * _GIGABYTE, _GIGABYTE, 4 * _GIGABYTE
_CLOCK_SLACK = 60.0  # seconds; file systems round, and a network share has a clock of its own


@dataclass(frozen=True)
class Check:
    """One finding; `fix` says what to do when `ok` is false."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def machine_checks(folder: Path) -> Iterator[Check]:
    """All checks that need no data; runs would be written under `folder`."""
    yield python_version()
    yield from package_versions()
    yield from loads()
    yield free_space("disk", folder, _DISK)
    yield temporary_folder()
    yield memory()
    yield clock()
    yield encoding()


def python_version() -> Check:
    """The interpreter lies within the bounds of the package."""
    bounds = SpecifierSet(importlib.metadata.metadata(_PACKAGE)["Requires-Python"])
    found = platform.python_version()
    fix = f"make an environment with Python {bounds} and install migrafed there"
    return Check("python", bounds.contains(found, prereleases=True), f"{found} (needs {bounds})", fix)


def package_versions() -> Iterator[Check]:
    """Every dependency lies within its bounds: one line when all do, one for each that does not."""
    wrong, right = [], 0
    for text in importlib.metadata.requires(_PACKAGE) or ():
        check = _version(text)
        if check is not None and not check.ok:
            wrong.append(check)
        right += check is not None and check.ok
    yield from wrong
    if not wrong:
        yield Check("packages", True, f"{right} packages within their bounds")


def _version(text: str) -> Check | None:
    """Check one requirement; nothing for an extra, or for another platform."""
    try:
        needed = Requirement(text)
    except InvalidRequirement:
        return Check("packages", False, f"cannot read the requirement '{text}'", "install migrafed again")
    if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
        return None
    fix = f"pip install '{needed.name}{needed.specifier}'"
    try:
        found = importlib.metadata.version(needed.name)
    except importlib.metadata.PackageNotFoundError:
        return Check(needed.name, False, f"not installed (needs {needed.specifier})", fix)
    good = needed.specifier.contains(found, prereleases=True)
    return Check(needed.name, good, f"{found} (needs {needed.specifier})", fix)


def loads() -> Iterator[Check]:
    """The compiled packages can be loaded, not only found."""
    broken = []
    for name in _LOADED:
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            broken.append((name, type(error).__name__, str(error).splitlines()[0] if str(error) else ""))
    for name, kind, first in broken:
        fix = f"pip install --force-reinstall {name.replace('_', '-')}"
        yield Check(f"load {name}", False, f"{kind}: {first}", fix)
    if not broken:
        yield Check("load", True, ", ".join(_LOADED))


def free_space(name: str, folder: Path, needed: int) -> Check:
    """Room on the disk that holds `folder`, or that will."""
    here = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(here).free
    found = f"{free / _GIGABYTE:.1f} GB free at {here} (needs {needed / _GIGABYTE:.0f})"
    return Check(name, free >= needed, found, f"free space at {here}, or choose another place (--out, TMPDIR)")


def temporary_folder() -> Check:
    """The folder for temporary files can be written, and has room."""
    folder = tempfile.gettempdir()
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as handle:
            handle.write(b"x")
    except OSError as error:
        return Check("temporary", False, f"{folder}: {error.strerror}", "set TMPDIR to a folder you may write")
    return free_space("temporary", Path(folder), _TEMPORARY)


def memory() -> Check:
    """Physical memory of the machine."""
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{have / _GIGABYTE:.1f} GB, {os.cpu_count()} cores (needs {_MEMORY / _GIGABYTE:.0f} GB)"
    return Check(
        "memory", have >= _MEMORY, found, "use fewer regions, a smaller [training] batch_size, or another machine"
    )


def clock() -> Check:
    """The clock agrees with the file system's and is not before the installation of this package."""
    now = time.time()
    with tempfile.NamedTemporaryFile() as handle:
        skew = abs(Path(handle.name).stat().st_mtime - now)
    installed = Path(__file__).stat().st_mtime
    fix = "set the clock (timedatectl set-ntp true): certificates and logs depend on it"
    if skew > _CLOCK_SLACK:
        return Check("clock", False, f"the file system's clock is {skew:.0f} s away", fix)
    if now < installed - _CLOCK_SLACK:
        return Check("clock", False, f"the clock is {installed - now:.0f} s before this package was installed", fix)
    return Check("clock", True, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def encoding() -> Check:
    """Names and arrows can be printed."""
    found = (sys.__stdout__.encoding if sys.__stdout__ is not None else None) or "none"
    good = found.lower().replace("-", "") == "utf8"
    return Check("encoding", good, found, "set LC_ALL=C.UTF-8; otherwise letters are shown as '?'")

"""A ledger whose process ends at every single write boundary, and whose disk loses what was not synchronised.

    python -m tests.ledger_cuts FOLDER      prints one JSON object with what happened

An operation runs in a forked child that ends before its n-th call to the operating system, or half-way through a write.
What the disk was not told to keep (fsync of the file for its content, of the folder for its names) is then kept, lost
whole, or lost in one of the two kinds. Whatever state that leaves is recovered from in another child, which is cut at
every boundary as well. After both cuts the ledger must verify, go on, and give what was acknowledged.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NoReturn

from privacy.ledger import verify_ledger
from tests.ledgers import gaussian_cost, new_ledger, reopened

Kind = Literal["content", "names"]
LOSSES: tuple[frozenset[Kind], ...] = (
    frozenset(),
    frozenset({"content"}),
    frozenset({"names"}),
    frozenset({"content", "names"}),
)
CALLS = ("open", "write", "fsync", "ftruncate", "replace", "rename", "unlink", "mkdir", "rmdir")
COST = gaussian_cost("1/1000", "1/10")
CUT = 9
NEVER = 10**6
Operation = Callable[[Path], bytes]


@dataclass
class Disk:
    """Counts the calls that change a disk, ends the process at one of them, and undoes what was not synchronised."""

    end_at: int
    half: bool
    lost: frozenset[Kind]
    fsync_works: bool = True
    calls: int = 0
    named: list[str] = field(default_factory=list)
    undo: list[tuple[Kind, str, Callable[[], object]]] = field(default_factory=list)
    real: dict[str, Callable[..., Any]] = field(default_factory=lambda: {name: getattr(os, name) for name in CALLS})

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, lambda *given, _name=name, **named: self.call(_name, *given, **named))

    def call(self, name: str, *given: Any, **named: Any) -> Any:
        if name == "open":  # no boundary: a cut before the write that follows leaves the same
            if given[1] & os.O_CREAT and not Path(given[0]).exists():
                self.note_new_file(Path(given[0]))
            return self.real[name](*given, **named)
        if self.calls == self.end_at:
            if self.half and name == "write":
                self.note_content(given[0])
                self.real["write"](given[0], bytes(given[1])[: len(given[1]) // 2])
            self.end(CUT)
        self.calls += 1
        self.named.append(name)
        if name in ("write", "ftruncate"):
            self.note_content(given[0])
        elif name == "fsync":
            return self.synchronised(given[0])  # the disk is played here, so nobody need wait for the real one
        elif name != "rmdir":
            self.note_names(name, *given)
        return self.real[name](*given, **named)

    def end(self, status: int) -> NoReturn:
        for name, function in self.real.items():
            setattr(os, name, function)
        for kind, _, action in reversed(self.undo):
            if kind in self.lost:
                action()
        os._exit(status)

    def note_content(self, file: int) -> None:
        """Remember what the file holds; by the open file, since it may be renamed."""
        before, kept = Path(f"/proc/self/fd/{file}").read_bytes(), os.dup(file)

        def restore() -> None:
            self.real["ftruncate"](kept, 0)
            os.pwrite(kept, before, 0)

        self.undo.append(("content", str(os.fstat(file).st_ino), restore))

    def note_new_file(self, place: Path) -> None:
        """By the open folder, since that may be renamed."""
        folder = self.real["open"](place.parent, os.O_RDONLY | os.O_DIRECTORY)

        def remove() -> None:
            with suppress(FileNotFoundError):
                os.unlink(place.name, dir_fd=folder)

        self.undo.append(("names", str(os.fstat(folder).st_ino), remove))

    def note_names(self, name: str, path: Any, target: Any = None) -> None:
        place, folder = Path(path), str(Path(path).parent.stat().st_ino)
        if name == "mkdir" and not place.exists():
            self.undo.append(("names", folder, lambda: shutil.rmtree(place, ignore_errors=True)))
        elif name == "unlink" and place.exists():
            content = place.read_bytes()
            self.undo.append(("names", folder, lambda: place.write_bytes(content)))
        elif name == "rename":  # of a whole folder
            self.undo.append(("names", folder, lambda: self.real["rename"](target, place)))
        elif name == "replace":
            old = Path(target).read_bytes() if Path(target).exists() else None
            self.undo.append(("names", folder, lambda: put_back(Path(target), place, old)))

    def synchronised(self, file: int) -> None:
        if not self.fsync_works:
            return
        about = os.fstat(file)
        synced = ("names" if stat.S_ISDIR(about.st_mode) else "content", str(about.st_ino))
        self.undo = [entry for entry in self.undo if entry[:2] != synced]


def put_back(target: Path, source: Path, old: bytes | None) -> None:
    """A rename that never happened."""
    source.write_bytes(target.read_bytes())
    target.unlink() if old is None else target.write_bytes(old)


def cut(
    operation: Operation,
    folder: Path,
    *,
    end_at: int,
    half: bool = False,
    lost: frozenset[Kind] = LOSSES[0],
    fsync_works: bool = True,
) -> tuple[bytes, list[str]] | None:
    """Run an operation in a child that ends at a boundary; what it returned, if it came that far, and its calls."""
    answer, said = os.pipe()
    child = os.fork()
    if not child:
        disk, status = Disk(end_at, half, lost, fsync_works), 1
        try:
            disk.install()
            returned = operation(folder)
            disk.real["write"](said, returned + b"|" + ",".join(disk.named).encode())
            status = 0
        finally:
            disk.end(status)
    os.close(said)
    with os.fdopen(answer, "rb") as pipe:
        returned = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) not in (0, CUT):
        raise RuntimeError(f"the operation failed at boundary {end_at}")
    answered, finished, calls = returned.partition(b"|")
    return (answered, calls.decode().split(",")) if finished else None


def states(
    operation: Operation, start: Path, scratch: Path, figures: Counter[str], losses: Sequence[frozenset[Kind]] = LOSSES
) -> Iterator[tuple[Path, bytes | None]]:
    """Every state that a cut of the operation leaves, each once, and what was returned before it."""
    seen: set[str] = set()

    def fresh() -> Path:
        folder = scratch / f"{len(seen)}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        return folder

    whole = cut(operation, fresh() / "ledger", end_at=NEVER)
    calls = whole[1] if whole else []
    ends = [(position, False) for position in range(len(calls) + 1)]
    halves = [(position, True) for position, name in enumerate(calls) if name == "write"]
    for lost in losses:
        for end_at, half in ends + halves:
            figures["cuts"] += 1
            folder = fresh()
            done = cut(operation, folder / "ledger", end_at=end_at, half=half, lost=lost)
            returned = done[0] if done else None
            if (print_ := fingerprint(folder, returned)) not in seen:
                seen.add(print_)
                yield folder, returned


def fingerprint(folder: Path, returned: bytes | None) -> str:
    """What a state consists of."""
    names = re.compile(r"(?<=\.ledger\.)[0-9a-f]+(?=\.new)")  # drafts of a new ledger have random names
    files = [
        (names.sub("", str(path.relative_to(folder))), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    return sha256(repr((files, returned)).encode()).hexdigest()


def create(folder: Path) -> bytes:
    if not (folder / "ledger.jsonl").exists():
        new_ledger(folder).close()
    return b"created"


def reserve(folder: Path) -> bytes:
    reopened(folder).reserve("summer", COST, request="plan", rounds=1)
    return b"reserved"


def serve(folder: Path) -> bytes:
    """The same bytes in every child, so that states can be compared: which child made them is in their end."""
    return reopened(folder).serve("spring", 2, request="second", produce=f"made by {PRODUCER}".encode)


PRODUCER = "the first child"


def check(folder: Path, operation: Operation, returned: list[bytes | None]) -> None:
    """The ledger verifies as it lies there, goes on, and keeps its word."""
    place = folder / "ledger"
    if operation is not create or any(returned):
        verify_ledger(place)
    acknowledged = next((answer for answer in returned if answer is not None), None)
    answer = operation(place)
    if acknowledged not in (None, answer):
        raise RuntimeError(f"{acknowledged!r} was returned, and then {answer!r}")
    facts = verify_ledger(place)
    expected = ["open"] if operation is create else ["open", "reserved", "served"]
    expected += ["reserved"] * (operation is reserve) + ["served"] * (operation is serve)
    if [line.kind for line in facts.lines] != expected or (facts.torn, facts.acknowledged) != (0, len(expected)):
        raise RuntimeError(f"lines are {[line.kind for line in facts.lines]}")


def main(scratch: Path) -> dict[str, float]:
    """All operations, cut once and cut twice."""
    global PRODUCER  # noqa: PLW0603 -- read by the forked children
    figures, started = Counter[str](), time.monotonic()
    empty, start = scratch / "empty", scratch / "start"
    empty.mkdir()
    ledger = new_ledger(start / "ledger")
    ledger.reserve("spring", COST, request="plan", rounds=3)
    ledger.serve("spring", 1, request="first", produce=lambda: b"noisy")
    for operation, begin in ((create, empty), (reserve, start), (serve, start)):
        PRODUCER = "the first child"
        for once, (state, first) in enumerate(states(operation, begin, scratch / operation.__name__, figures)):
            figures["states_of_one_cut"] += 1
            PRODUCER = "the second child"
            recovery = scratch / f"{operation.__name__}{once}"
            for twice, second in states(operation, state, recovery, figures, LOSSES[::3]):
                PRODUCER = "the last one"
                check(twice, operation, [first, second])
                figures["states_of_two_cuts"] += 1
                PRODUCER = "the second child"
            PRODUCER = "the last one"
            check(state, operation, [first])
            PRODUCER = "the first child"
            shutil.rmtree(recovery)
    return {**figures, "seconds": round(time.monotonic() - started, 1)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")

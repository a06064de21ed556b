"""A continual release whose process ends at every write boundary, and whose disk loses what was not synchronised.

    python -m tests.release_cuts FOLDER [EVERY]     prints one JSON object with what happened

The release runs in a forked child that ends before its n-th call to the operating system, or half-way through a write;
the disk then keeps, or loses, what it was not told to keep (see `tests.ledger_cuts`). Then the same command runs again.
After that every step must be there once, as it was first returned, and nobody may be counted too often.

Counting is played: no engine, and noise is left out, so that what was released tells how often each person is in it.
Person i only ever looks from C1 to the i-th city, so the cell (C1, i) is person i.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from clients import custody, releases
from clients.contribution_book import KEPT, used_in
from clients.holder_config import load_holder
from clients.release_store import ReleaseStore, read_steps
from clients.releases import parse_period, release_steps
from clients.step_counts import StepCounts
from privacy.bounding import BoundedCounts
from privacy.ledger import verify_ledger
from privacy.plan import CountReleasePlan
from privacy.release import NoisyCounts
from tests.holder_files import CODES, HELD, make_holder
from tests.ledger_cuts import LOSSES, NEVER, cut

K = 2
STEPS, DAYS = "2026-01-01..2026-01-03", 3
CELLS = 1, len(HELD), len(CODES)


class PlayedCounts:
    """Everybody searches every day, and is counted while there is allowance."""

    balance = None

    def count(self, _engine: object, _step: int, *, contributions: int, spare: int, book: Sequence[Path]) -> StepCounts:
        used = used_in(book)
        spent = dict(zip(used["person"].to_pylist(), used["used"].to_pylist(), strict=True))
        people = [person for person in range(len(CODES)) if spent.get(person, 0) < contributions + spare]
        cells = np.zeros(CELLS, np.int64)
        cells[0, 0, people] = 1
        between = cells * (np.arange(len(CODES)) != 0)
        kept = pa.Table.from_pylist([{"bucket": 0, "person": person, "kept": 1} for person in people], KEPT)
        return StepCounts(BoundedCounts(cells, between.sum(axis=1), between.sum(axis=2)), kept)


def play() -> None:
    """Put the played parts in place; for a process of its own."""

    def noiseless(queries: dict[str, np.ndarray], *_: object) -> NoisyCounts:
        return NoisyCounts(values=dict(queries), stddev=dict.fromkeys(queries, 1.0))

    played: dict[str, Any] = {
        "opened_engine": lambda *_: nullcontext(),
        "open_rows": lambda *_: SimpleNamespace(name="played"),
        "stage_steps": lambda *_, **__: PlayedCounts(),
        "latest_day": lambda *_: np.datetime64("2026-12-31"),
        "release_counts": noiseless,
    }
    for name, part in played.items():
        setattr(releases, name, part)
    # Epsilon of one and the same mechanism, asked for a thousand times.
    CountReleasePlan.epsilon = _once(CountReleasePlan.epsilon)
    custody.cost_of = _once(custody.cost_of)
    os.fsync = lambda _: None  # the disk is played in the children, and need not be waited for here


def _once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The first result, for whatever it is asked."""
    results: list[Any] = []

    def remembered(*given: Any, **named: Any) -> Any:
        if not results:
            results.append(function(*given, **named))
        return results[0]

    return remembered


def release(folder: Path) -> bytes:
    """The command; what it returned is the time and the bytes of every step."""
    settings = load_holder(folder / "holder.toml")
    release_steps(settings, parse_period(settings, STEPS))
    return answer(settings.store)


def answer(store: Path) -> bytes:
    return json.dumps([[step.request, step.blob] for step in ReleaseStore(store).all_served()]).encode()


def served_before(folder: Path) -> dict[str, str]:
    """Steps that a reader of the ledger could have seen, and their bytes."""
    store = ReleaseStore(folder / "store")
    if not store.ledger_folder("2026").exists():
        return {}
    facts = verify_ledger(store.ledger_folder("2026"))
    seen = facts.lines[: facts.acknowledged]
    return {line.body["request"]: line.body["blob"] for line in seen if line.kind == "served"}


def check(folder: Path, figures: Counter[str]) -> None:
    """Go on after the cut, and hold the result against what was seen before."""
    seen = served_before(folder)
    figures["released_before_the_cut"] += len(seen)
    release(folder)
    store = ReleaseStore(folder / "store")
    served = {step.request: step.blob for step in store.all_served()}
    if len({request[:10] for request in served}) != DAYS or len(served) != DAYS:
        raise RuntimeError(f"released are {sorted(served)}")
    if any(served.get(request) != blob for request, blob in seen.items()):
        raise RuntimeError("a step was released twice, and not the same")
    steps = read_steps(folder / "store", step="day")
    counted = steps.counts.values["cells"][:, 0].sum(axis=0)
    if (counted > K).any():
        raise RuntimeError(f"persons are counted {counted.tolist()} times, and may be {K} times")
    figures["fewer_than_allowed"] += int((counted < K).any())
    if len([path for path in store.published.iterdir() if not path.name.startswith(".")]) != DAYS:
        raise RuntimeError("a released step was not published")
    if answer(folder / "store") != release(folder):
        raise RuntimeError("the same command changed something")


def main(scratch: Path, every: int = 1) -> dict[str, float]:
    """Every boundary of a release (or every so manyth), with all that was not synchronised kept, and lost."""
    play()
    figures, started = Counter[str](), time.monotonic()
    start = scratch / "start"
    make_holder(start, None, release={"contributions": K})
    release(copy(start, scratch / "warm"))  # calibrated once, for all children
    whole = cut(release, copy(start, scratch / "whole"), end_at=NEVER)
    calls = whole[1] if whole else []
    figures["boundaries"] = len(calls)
    ends = [(end, False) for end in range(len(calls) + 1)] + [
        (end, True) for end, n in enumerate(calls) if n == "write"
    ]
    for number, (end_at, half) in enumerate(ends):
        for lost in LOSSES[::3]:
            if (figures["states"] + number) % every == 0:
                folder = copy(start, scratch / "cut")
                cut(release, folder, end_at=end_at, half=half, lost=lost)
                figures["cuts"] += 1
                check(folder, figures)
            figures["states"] += 1
    return {**figures, "seconds": round(time.monotonic() - started, 1)}


def copy(start: Path, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(start, folder))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), *map(int, sys.argv[2:]))) + "\n")

"""The private folder of a holder's releases, and what was released from it so far::

    persons.key                 the secret under which persons are hashed
    book/                       who was counted how often: `clients.contribution_book`
    ledgers/PERIOD/             key and ledger of one ledger period: `clients.custody`
    releases/STEP/              what analysts read: noisy counts as tables, and how noisy they are
    work/                       staged rows of a release in progress; emptied before and after

Everything but ``releases/`` is raw or a function of raw data and stays here. A copy of the folder is only of use whole:
without the secret, the book or a ledger no further step is released.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from clients.contribution_book import WAY_OUT, ContributionBook
from clients.custody import LEDGER_FOLDER
from clients.private_files import SECRET_BYTES, make_private_folder, new_secret
from dhgsil.steps import Step, check_regular
from privacy.ledger import LedgerLine, verify_ledger
from privacy.ledger_file import LedgerFolder
from privacy.release import NoisyCounts
from protocol.errors import DataError, LedgerError

CAMPAIGN = "job queries"
_REQUEST = re.compile(r"(\d{4}-\d{2}-\d{2}) ([0-9a-f]{64}) ([0-9a-f]{64})")


@dataclass(frozen=True)
class ServedStep:
    """One released step as the line of its ledger has it.

    Args:
        ledger: Name of the ledger period.
        number: Its round.
        first: First day of the step.
        base: Digest of what the whole ledger period was reserved for.
        mark: Mark of the book of contributions that it is bound to.
        blob: SHA-256 of what was released.
    """

    ledger: str
    number: int
    first: dt.date
    base: str
    mark: str
    blob: str

    @property
    def request(self) -> str:
        """As the ledger was asked for it."""
        return step_request(self.first, base=self.base, mark=self.mark)


@dataclass(frozen=True, eq=False)
class ReleasedSteps:
    """Released steps in the order of time. Shapes: times (T,) datetime64[D]; counts as in `NoisyCounts`."""

    times: np.ndarray
    counts: NoisyCounts


def step_request(first: dt.date, *, base: str, mark: str) -> str:
    """What the ledger is asked for: the step, what was reserved, and the book that knows of it."""
    return f"{first} {base} {mark}"


def served_steps(lines: Iterable[LedgerLine], *, ledger: str) -> tuple[ServedStep, ...]:
    """The released steps in the lines of a ledger, in the order of release.

    Raises:
        LedgerError: a line of this campaign is of another kind.
    """
    found: list[ServedStep] = []
    for line in lines:
        if line.kind != "served" or line.body["campaign"] != CAMPAIGN:
            continue
        parts = _REQUEST.fullmatch(line.body["request"])
        if parts is None:
            raise LedgerError(
                f"line {line.seq} of ledger '{ledger}' is not a released step; give the store a ledger of its own"
            )
        first = dt.date.fromisoformat(parts[1])
        found.append(
            ServedStep(ledger, line.body["round_number"], first, base=parts[2], mark=parts[3], blob=line.body["blob"])
        )
    return tuple(found)


class ReleaseStore:
    """The folder and its ledgers, read without a key. Reading writes nothing.

    Args:
        root: The folder; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.book_folder, self.work = root, root / "book", root / "work"
        self.lock, self.secret_file, self.published = root / "store.lock", root / "persons.key", root / "releases"

    def custody_folder(self, ledger: str) -> Path:
        """Where key and ledger of a ledger period lie."""
        return self.root / "ledgers" / ledger

    def ledger_folder(self, ledger: str) -> Path:
        """The ledger itself."""
        return self.custody_folder(ledger) / LEDGER_FOLDER

    def ledgers(self) -> list[str]:
        """Names of the ledger periods that were opened."""
        return sorted(path.parent.name for path in self.root.glob(f"ledgers/*/{LEDGER_FOLDER}"))

    def served(self, ledger: str) -> tuple[ServedStep, ...]:
        """Released steps of one ledger period; none where it was not opened.

        Raises:
            LedgerError: its ledger is damaged.
        """
        folder = self.ledger_folder(ledger)
        return served_steps(verify_ledger(folder).lines, ledger=ledger) if folder.exists() else ()

    def all_served(self) -> tuple[ServedStep, ...]:
        """Released steps of all ledger periods, in the order of time.

        Raises:
            LedgerError: a ledger is damaged.
        """
        steps = [step for ledger in self.ledgers() for step in self.served(ledger)]
        return tuple(sorted(steps, key=lambda step: step.first))

    def secret(self, *, ledger: str) -> bytes:
        """The secret under which persons are hashed; drawn before the first release.

        Raises:
            LedgerError: it is cut short; or lost, with a book or with releases of this ledger period that need it.
        """
        if not self.secret_file.exists():
            if self.book_folder.exists() or self.served(ledger):
                raise LedgerError(
                    f"{self.secret_file} is lost, and without it persons who were counted are not found again in the "
                    f"book of contributions; {WAY_OUT}"
                )
            return new_secret(self.secret_file)
        secret = self.secret_file.read_bytes()
        if len(secret) != SECRET_BYTES:
            raise LedgerError(f"{self.secret_file} does not hold {SECRET_BYTES} bytes; {WAY_OUT}")
        return secret

    def book(self, secret: bytes, *, ledger: str, buckets: int) -> ContributionBook:
        """The book of contributions, compared with the ledgers.

        Raises:
            LedgerError: see `ContributionBook.open`.
        """

        @cache
        def mark_in(name: str) -> str:
            served = self.served(name)
            return served[-1].mark if served else ""

        return ContributionBook.open(self.book_folder, secret, mark_in, ledger=ledger, buckets=buckets)

    @contextmanager
    def working(self) -> Iterator[Path]:
        """An empty private folder for the time of a release; what a killed one left in it is removed first."""
        shutil.rmtree(self.work, ignore_errors=True)
        make_private_folder(self.work)
        try:
            yield self.work
        finally:
            shutil.rmtree(self.work, ignore_errors=True)

    def stored(self, step: ServedStep) -> NoisyCounts:
        """What was released of a step.

        Raises:
            LedgerError: missing or changed.
        """
        folder = LedgerFolder(self.ledger_folder(step.ledger))
        return NoisyCounts.from_bytes(folder.stored(CAMPAIGN, step.number, step.blob))


def read_releases(store: Path, *, ledger: str | None = None) -> NoisyCounts:
    """The noisy counts of all released steps, in the order of time: what the forecaster trains on; see `read_steps`."""
    return read_steps(store, ledger=ledger).counts


def read_steps(store: Path, *, ledger: str | None = None, step: Step | None = None) -> ReleasedSteps:
    """All released steps and their days.

    Args:
        store: The holder's private folder.
        ledger: Only this ledger period.
        step: If given, days without a release in between are refused.

    Raises:
        DataError: nothing was released, or steps that do not fit together: other noise, other cities, a gap.
        LedgerError: a ledger is damaged, or a release missing or changed.
    """
    folder = ReleaseStore(store)
    served = folder.all_served() if ledger is None else folder.served(ledger)
    if not served:
        raise DataError("nothing has been released", way_out="run 'migrafed holder release' first", source=store)
    times = np.array([one.first for one in served], "datetime64[D]")
    if step is not None:
        check_regular(times, step, source=store)
    return ReleasedSteps(times, _joined([folder.stored(one) for one in served], store))


def _joined(releases: Sequence[NoisyCounts], store: Path) -> NoisyCounts:
    first = releases[0]
    for other in releases[1:]:
        shapes = [{name: values.shape[1:] for name, values in one.values.items()} for one in (first, other)]
        if other.stddev != first.stddev or shapes[0] != shapes[1]:
            raise DataError(
                "the releases differ in their noise, their queries or their cities",
                way_out="read one ledger period at a time",
                source=store,
            )
    values = {name: np.concatenate([one.values[name] for one in releases]) for name in first.values}
    return NoisyCounts(values=values, stddev=first.stddev)

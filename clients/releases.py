"""Continual release of job-query counts: every step of the public grid once, within one budget per ledger period.

Let a person be in at most k cells over the steps of a ledger period, and let every step be released with the same noise
s on every cell. Then adding or removing the person changes all steps together by at most sqrt(k) in L2, so that they
cost what one release with k contributions costs, ``rho = k / (2 s^2)`` for each query, whatever their number. So the
ledger reserves that once, for as many rounds as the period has steps, and every step is one round at no further cost.
Two ledger periods are two charges. What a person has used up is remembered in the book of contributions; it is on the
disk before a step is released, see `docs/decisions/0008-one-charge-for-a-year-of-releases.md`::

    settings = load_holder(Path("holder.toml"))
    release_steps(settings, parse_period(settings, "2026-03-01"))

A step is released once and never again: asked anew, it gives the stored bytes, and rows that arrived meanwhile are left
out of it for good. Steps are released in the order of time, without a gap.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from zoneinfo import ZoneInfo

import numpy as np

from clients.contribution_book import ContributionBook, Entry
from clients.custody import Custody
from clients.holder_config import HolderSettings
from clients.holder_rows import open_rows, opened_engine
from clients.private_files import make_private_folder, only_process
from clients.public_inputs import PublicInputs, read_public_inputs
from clients.published import publish
from clients.release_store import CAMPAIGN, ReleaseStore, ServedStep, served_steps, step_request
from clients.stages import Stages, Unheard, stage
from clients.step_counts import StagedSteps, stage_steps
from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from privacy.release import release_counts
from protocol.errors import DataError, LedgerError, PlanError
from tables.balance import Balance
from tables.engine import Engine
from tables.keyed_hash import KeyedHash
from tables.sources import RowSource
from tables.times import local_days

BUCKETS = 32
"""Into how many buckets persons are hashed. The book keeps them, so another number is another book."""


@dataclass(frozen=True)
class WantedSteps:
    """Positions in the grid, and whether steps that the source does not complete are left for later or refused."""

    steps: range
    only_complete: bool = False


@dataclass(frozen=True)
class ReleaseOutcome:
    """What a call released.

    Args:
        balance: Where the rows went that were read for it; None where nothing was. Made of raw rows: it stays with the
            holder.
        released: First days of the steps that were released now.
        stored: First days of those that had been released before.
        waiting: First days of those that the source does not complete yet.
        epsilon: What the ledger period is charged, at the policy's delta; for all its steps together.
        spent: What the whole ledger has spent.
        left: What it has left, in words.
    """

    released: tuple[dt.date, ...]
    stored: tuple[dt.date, ...]
    waiting: tuple[dt.date, ...]
    epsilon: float
    spent: float
    left: str
    balance: Balance | None = None


def parse_period(settings: HolderSettings, text: str) -> WantedSteps:
    """The steps that ``--period`` names: a day of the step, two of them as ``A..B``, or ``all`` of the ledger period.

    Raises:
        PlanError: not a date, outside the grid, or paid for by another ledger period.
    """
    own = settings.ledger_steps
    if text == "all":
        return WantedSteps(own, only_complete=True)
    first, dots, last = text.partition("..")
    steps = range(_position(settings, first), _position(settings, last if dots else first) + 1)
    if not steps:
        raise PlanError(f"--period {text} ends before it begins; write the earlier day first")
    if steps[0] not in own or steps[-1] not in own:
        times = settings.calendar.times
        raise PlanError(
            f"--period {text}: [privacy] period '{settings.config.privacy.period}' pays for the steps {times[own[0]]} "
            f"to {times[own[-1]]}; choose among them, or open the next period there"
        )
    return WantedSteps(steps)


def _position(settings: HolderSettings, text: str) -> int:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        raise PlanError(f"--period: '{text}' is not a date; write YYYY-MM-DD, YYYY-MM-DD..YYYY-MM-DD or all") from None
    days = np.array([day], "datetime64[D]").astype(np.int64)
    position = int(settings.calendar.step_of(days)[0])
    if position < 0:
        release = settings.config.release
        raise PlanError(
            f"--period: {day} is outside the public grid, {release.start} to {release.end}; choose a day in it"
        )
    return position


def release_steps(
    settings: HolderSettings,
    wanted: WantedSteps,
    *,
    backend: str | None = None,
    complete: bool = False,
    stages: Stages | None = None,
) -> ReleaseOutcome:
    """Release the wanted steps that were not released yet, one after the other.

    Unit: a person, one account at this holder. Adjacency: add or remove one with all their rows. Sensitivity of all
    steps of the ledger period together, for each query: L2 <= sqrt(k), Linf <= 1.

    Args:
        settings: The holder's file.
        wanted: See `parse_period`.
        backend: Ibis connection of the holder's own engine; None: DuckDB in this process.
        complete: No more rows will come, so that a step needs no later row to be released.
        stages: Told how far it is.

    Raises:
        PolicyRefusedError, BudgetExceededError: nothing was written.
        LedgerError: the store cannot be trusted or written, or another process releases from it.
        PlanError: a step would leave a gap or go back.
        DataError: the source is not complete, or breaks a rule.
        EngineError: the engine failed, and nothing of that step was released.
    """
    config = settings.config
    mechanism = config.release.mechanism()
    config.privacy.check(mechanism)
    public = read_public_inputs(settings)
    try:
        with only_process(ReleaseStore(settings.store).lock):
            release = _Release(settings, public, mechanism, stages or Unheard())
            return release.run(wanted, backend, complete=complete)
    except OSError as error:
        raise LedgerError(
            f"the store {settings.store} cannot be read or written ({error.strerror or type(error).__name__}); what "
            "was released before stays as it is: see to rights and room on the disk, and ask again"
        ) from None


class _Release:
    """One call, under the lock of the store."""

    def __init__(
        self, settings: HolderSettings, public: PublicInputs, mechanism: CountReleasePlan, stages: Stages
    ) -> None:
        self._settings, self._public, self._mechanism, self._stages = settings, public, mechanism, stages
        self._store, self._ledger = ReleaseStore(settings.store), settings.config.privacy.period
        self._base = settings.request(mechanism, public=public.digests(), buckets=BUCKETS)
        self._times = settings.calendar.times

    def run(self, wanted: WantedSteps, backend: str | None, *, complete: bool) -> ReleaseOutcome:
        """Refuse what can be refused before any work; then release step by step."""
        if self._store.ledger_folder(self._ledger).exists():
            self._custody().close()
        served = self._store.all_served()
        missing = self._missing(wanted.steps, served)
        stored = [self._first(step) for step in wanted.steps if step not in set(missing)]
        released, balance = list[int](), None
        if missing:
            with self._store.working() as work, opened_engine(backend, work) as engine:
                rows = open_rows(self._settings, engine)
                due = self._due(missing, rows, complete)
                due = missing if complete and not wanted.only_complete else due
                if len(due) < len(missing) and not (wanted.only_complete and (due or stored)):
                    self._refuse_incomplete(missing[len(due)], rows)
                if due:
                    balance = self._release(due, rows, engine, work)
                    released = due
        with self._custody() as custody:
            for step in served_steps(custody.ledger.lines(), ledger=self._ledger):
                publish(self._settings, self._public, self._mechanism, self._store, step)
            return ReleaseOutcome(
                released=tuple(map(self._first, released)),
                stored=tuple(stored),
                waiting=tuple(map(self._first, missing[len(released) :])),
                epsilon=self._mechanism.epsilon(self._settings.config.privacy.delta),
                spent=float(custody.ledger.spent),
                left=custody.ledger.left_in_words,
                balance=balance,
            )

    def _custody(self) -> Custody:
        """The open ledger of this period, if it may pay for the release. Writes nothing to one that is there.

        Raises:
            BudgetExceededError: it has too little left.
            LedgerError: it was reserved for other settings, or cannot be trusted.
        """
        folder = self._store.custody_folder(self._ledger)
        make_private_folder(folder)  # its name must be on the disk before the book names its ledger
        custody = Custody.at(folder, self._settings.config.privacy)
        for line in custody.ledger.lines():
            if line.kind == "reserved" and line.body["campaign"] == CAMPAIGN and line.body["request"] != self._base:
                raise LedgerError(
                    f"ledger period '{self._ledger}' was reserved for other settings: the mechanism, the grid, the "
                    "held cities, the city list, the keywords or the rules have changed since its first release; put "
                    "them back, or give [privacy] period a new name and a budget of its own"
                )
        custody.check(self._mechanism, CAMPAIGN)
        return custody

    def _first(self, step: int) -> dt.date:
        return self._times[step].item()

    def _missing(self, wanted: range, served: Sequence[ServedStep]) -> list[int]:
        """The wanted steps that were not released, which must follow on what was.

        Raises:
            PlanError: they leave a gap, or lie before a step of another ledger period.
        """
        done = {step.first for step in served if step.ledger == self._ledger}
        missing = [step for step in wanted if self._first(step) not in done]
        if not missing or not served:
            return missing
        last = served[-1].first
        following = int(np.searchsorted(self._times, np.datetime64(last), side="right"))
        in_grid = bool((self._times == np.datetime64(last)).any())
        if missing[0] < following:
            raise PlanError(
                f"{self._first(missing[0])} lies before {last}, which was released already; steps are released in the "
                "order of time, and what was passed over is not released any more"
            )
        if in_grid and missing[0] > following:
            raise PlanError(
                f"the next step to be released is {self._first(following)}, not {self._first(missing[0])}; ask for "
                f"{self._first(following)}..{self._first(missing[-1])} (steps without rows are released as well)"
            )
        return missing

    def _due(self, missing: list[int], rows: RowSource, complete: bool) -> list[int]:
        """The steps after whose last day the source has a row; if it is complete, also the one of its last row."""
        with stage(self._stages, "last day of the source"):
            latest = latest_day(self._settings, rows)
        edge = self._times.__getitem__ if complete else self._settings.first_day_after
        return [step for step in missing if latest is not None and latest >= edge(step)]

    def _refuse_incomplete(self, step: int, rows: RowSource) -> NoReturn:
        raise DataError(
            f"no row is from {self._settings.first_day_after(step)} or later (today, {_today(self._settings)}, at the "
            f"latest), so that {self._first(step)} may not be complete yet, and rows that arrive after its release are "
            "left out for good",
            way_out="wait for later rows, or say --complete if there will be none",
            source=rows.name,
        )

    def _release(self, steps: list[int], rows: RowSource, engine: Engine, work: Path) -> Balance:
        """Stage the rows of all steps once, then release step by step; returns where the rows went."""
        secret = self._store.secret(ledger=self._ledger)
        book = self._store.book(secret, ledger=self._ledger, buckets=BUCKETS)
        with stage(self._stages, "staging"):
            staged = stage_steps(
                self._settings, self._public, rows, range(steps[0], steps[-1] + 1),
                keys=KeyedHash(secret), folder=work / "staged", buckets=BUCKETS,
            )  # fmt: skip
        with self._custody() as custody, stage(self._stages, "releases", total=len(steps)):
            custody.reserve(CAMPAIGN, self._mechanism, request=self._base, rounds=len(self._settings.ledger_steps))
            for done, step in enumerate(steps, 1):
                self._release_step(custody, book, staged, engine, step)
                self._stages.advanced("releases", done, str(self._first(step)))
        return staged.balance

    def _release_step(
        self, custody: Custody, book: ContributionBook, staged: StagedSteps, engine: Engine, step: int
    ) -> None:
        """Count, write the book, and only then draw noise and release: the order is what keeps the bound."""
        release, first = self._settings.config.release, self._first(step)
        files = book.files(first=first, window_days=release.window_days, ledger=self._ledger)
        spare = release.contributions - release.contributions_per_step
        counted = staged.count(engine, step, contributions=release.contributions_per_step, spare=spare, book=files)
        last = (self._settings.first_day_after(step) - 1).astype(object)
        mark = book.record(Entry(first, last, self._ledger), counted.kept, window_days=release.window_days)

        def produce() -> bytes:
            queries = counted.bounded.queries(margins=release.margins)
            return release_counts(queries, self._mechanism, SecureStream()).to_bytes()

        request = step_request(first, base=self._base, mark=mark)
        custody.serve(CAMPAIGN, step - self._settings.ledger_steps[0] + 1, request=request, produce=produce)


def latest_day(settings: HolderSettings, rows: RowSource) -> np.datetime64 | None:
    """The last day, up to today, of which the source has a row with a readable time, in the zone of the grid.

    A row from a later day has a wrong clock, and tells of no day that it is over.

    Raises:
        DataError: no row lies in the grid; whatever was released of such a source would be zeros.
    """
    source, calendar, latest, inside = settings.config.job_queries, settings.calendar, None, False
    today = _today(settings).astype(np.int64)
    for batch in rows.batches([source.time]):
        found = local_days(batch.column(0), zone=calendar.zone, naive=source.naive_times)
        days = found.days[found.status == 0]
        inside = inside or bool((calendar.step_of(days) >= 0).any())
        if len(past := days[days <= today]):
            latest = max(int(past.max()), int(past.max()) if latest is None else latest)
    if not inside:
        raise DataError(
            f"not one row has a readable time, with a zone, in the public grid, {calendar.start} to {calendar.end}",
            way_out="run `migrafed holder check`, which says why rows are dropped",
            source=rows.name,
        )
    return None if latest is None else np.datetime64(latest, "D")


def _today(settings: HolderSettings) -> np.datetime64:
    return np.datetime64(dt.datetime.now(ZoneInfo(settings.calendar.zone)).date(), "D")

"""What a holder's settings and a sample of its rows look like, before anything is released. Changes nothing.

Every figure is a share or a count of the sample; no user key, no text and no address is ever kept, shown or logged. The
figures are functions of raw rows that nobody paid for: they stay with the holder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from clients.holder_config import HolderSettings
from clients.public_inputs import PublicInputs, read_public_inputs
from clients.release_store import CAMPAIGN, ReleaseStore
from clients.stages import Stages, Unheard, stage
from dhgsil.queries.columns import indices_of_codes, is_missing, plain
from dhgsil.queries.destinations import Place
from dhgsil.queries.ingest import ingest
from dhgsil.queries.origins import AddressBook, OriginStatus
from dhgsil.queries.texts import TextReader, TextStatus
from privacy.accounting import cost_of
from privacy.campaign import campaign_events
from privacy.ledger import verify_ledger
from privacy.plan import CountReleasePlan
from protocol.errors import DataError, MigrafedError
from tables.balance import Balance
from tables.checks import Finding, check_schema
from tables.keyed_hash import KeyedHash
from tables.sources import BATCH_ROWS, RowSource
from tables.times import local_days

MUCH, MANY_TIMES = 0.05, 5.0  # a key has much of the rows: this share, and so many times that of a key on average


@dataclass(frozen=True)
class CheckedHolder:
    """What every check found, and where the rows of the sample would go.

    Args:
        findings: In the order of the checks.
        rows: Rows of the sample.
        balance: Rows of the sample in and out of every step of the ingest; None where it could not run.
    """

    findings: tuple[Finding, ...]
    rows: int = 0
    balance: Balance | None = None

    @property
    def failed(self) -> int:
        """How many checks failed."""
        return sum(finding.status == "failed" for finding in self.findings)


@dataclass
class _Report:
    """Findings so far. A check that fails with an error of ours becomes a finding, and the checks go on."""

    findings: list[Finding] = field(default_factory=list)

    def ok(self, check: str, found: str, *, column: str = "") -> None:
        self.findings.append(Finding(check=check, column=column, status="ok", found=found, way_out=""))

    def note(self, check: str, found: str, way_out: str, *, column: str = "") -> None:
        self.findings.append(Finding(check=check, column=column, status="note", found=found, way_out=way_out))

    def failed(self, check: str, found: str, way_out: str, *, column: str = "") -> None:
        self.findings.append(Finding(check=check, column=column, status="failed", found=found, way_out=way_out))

    @contextmanager
    def trying(self, check: str) -> Iterator[None]:
        """An error of ours inside is the finding of this check."""
        try:
            yield
        except MigrafedError as error:
            way_out = error.way_out if isinstance(error, DataError) else ""
            self.failed(check, str(error).removesuffix(way_out).rstrip("; "), way_out or "see there")


def check_holder(
    settings: HolderSettings, open_rows: Callable[[], RowSource], *, rows: int, stages: Stages | None = None
) -> CheckedHolder:
    """Run every check on a sample of the holder's rows.

    Args:
        settings: The holder's file.
        open_rows: Opens its raw queries.
        rows: Size of the sample.
        stages: Told how far it is.
    """
    listener, report = stages or Unheard(), _Report()
    policy_findings(settings, report)
    public = public_findings(settings, report)
    with stage(listener, "sample"):
        sample = _sample_of(settings, open_rows, report, rows=rows)
    if sample is None or not len(sample):
        return CheckedHolder(tuple(report.findings))
    balance = None
    with stage(listener, "checks"):
        column_findings(settings, sample, report)
        if public is not None:
            content_findings(settings, sample, public, report)
            with report.trying("ingest"):
                balance = balance_of(settings, sample, public)
                balance_findings(balance, report)
    return CheckedHolder(tuple(report.findings), len(sample), balance)


def public_findings(settings: HolderSettings, report: _Report) -> PublicInputs | None:
    """City list, held cities, keywords and grid."""
    with report.trying("public inputs"):
        public = read_public_inputs(settings)
        report.ok(
            "public inputs",
            f"{len(public.cities)} cities, {len(public.held)} held, {len(public.keywords.job)} job and "
            f"{len(public.keywords.stop)} stop terms, {len(settings.calendar.times)} steps",
        )
        return public
    return None


def _sample_of(
    settings: HolderSettings, open_rows: Callable[[], RowSource], report: _Report, *, rows: int
) -> pa.Table | None:
    """Rows from all over the source, if it can be opened and has the columns."""
    columns = settings.config.job_queries.columns()
    with report.trying("files"):
        source = open_rows()
        report.ok("files", _size(source))
        found = check_schema(source.schema, settings.config.job_queries.contract())
        report.findings += found
        if any(finding.status == "failed" for finding in found):
            return None
        sample = source.sample(columns, rows=rows)
        if not len(sample):
            report.failed("files", "there are no rows", "give a source that has some")
        return sample
    return None


def policy_findings(settings: HolderSettings, report: _Report) -> None:
    """Whether the policy allows the release, what it costs, and what the ledger has left."""
    config = settings.config
    with report.trying("policy"):
        mechanism, steps = config.release.mechanism(), settings.ledger_steps
        config.privacy.check(mechanism)
        margins = "" if mechanism.margins_stddev is None else f", margins {mechanism.margins_stddev:.4g}"
        report.ok(
            "policy",
            f"allows it: epsilon {mechanism.epsilon(config.privacy.delta):.4g} of {config.privacy.max_epsilon:g} for "
            f"all {len(steps)} steps of '{config.privacy.period}' together; noise stddev: cells "
            f"{mechanism.cells_stddev:.4g}{margins}",
        )
        with report.trying("ledger"):
            report.ok("ledger", _ledger_state(settings, mechanism))


def _ledger_state(settings: HolderSettings, mechanism: CountReleasePlan) -> str:
    """What was released, and what is left; read without a key.

    Raises:
        BudgetExceededError: too little is left.
        LedgerError: it is damaged.
    """
    privacy = settings.config.privacy
    folder = ReleaseStore(settings.store).ledger_folder(privacy.period)
    if not folder.exists():
        return "none yet; the first release opens it"
    book = verify_ledger(folder).book
    if CAMPAIGN not in book.campaigns:
        book.check_budget(CAMPAIGN, cost_of(campaign_events(mechanism), delta=privacy.delta))
        return f"nothing released yet, left: {book.left_in_words}"
    return f"{len(book.campaigns[CAMPAIGN].served)} steps released, left: {book.left_in_words}"


def column_findings(settings: HolderSettings, sample: pa.Table, report: _Report) -> None:
    """Types, times, zones and persons."""
    source, calendar = settings.config.job_queries, settings.calendar
    for name in source.columns():
        report.ok("missing values", _share(sample[name].null_count / len(sample)), column=name)
    with report.trying("times"):
        days = local_days(sample[source.time], zone=calendar.zone, naive=source.naive_times)
        shares = np.bincount(days.status, minlength=4) / len(sample)
        inside = (calendar.step_of(days.days)[days.status == 0] >= 0).mean() if shares[0] else 0.0
        found = (
            f"readable {_share(shares[0])}, missing {_share(shares[1])}, without zone {_share(shares[2])}, unreadable "
            f"{_share(shares[3])}; of the readable inside the grid {_share(inside)}"
        )
        if not shares[0]:
            report.failed("times", found, "name their zone in naive_times, or give times with one", column=source.time)
        elif shares[2]:
            report.note("times", found, "name the zone of such times in naive_times", column=source.time)
        else:
            report.ok("times", found, column=source.time)
    person_findings(sample[source.user], source.user, report)


def person_findings(column: pa.ChunkedArray, name: str, report: _Report) -> None:
    """How many persons there are, and whether one key has so many rows that it may stand for several."""
    users = plain(_combined(column)).dictionary_encode()
    codes = users.indices.fill_null(0).to_numpy(zero_copy_only=False)
    rows = np.bincount(codes[~is_missing(users)]) if len(users.dictionary) else np.zeros(1, np.int64)
    if not rows.any():
        report.failed("persons", "nobody: every key is missing", "name the column of user keys", column=name)
        return
    persons, most = int((rows > 0).sum()), float(rows.max() / rows.sum())
    found = f"{persons / len(column):.3f} per row of the sample; the key with most rows has {_share(most)} of them"
    if most > max(MUCH, MANY_TIMES / persons):
        way_out = "a key that stands for all who are unknown (0, null, guest) protects none of them: make it null"
        report.note("persons", found, way_out, column=name)
    else:
        report.ok("persons", found, column=name)


def content_findings(settings: HolderSettings, sample: pa.Table, public: PublicInputs, report: _Report) -> None:
    """City codes, addresses and texts: what is recognised of them."""
    source = settings.config.job_queries
    own = [public.cities.index[code] for code in public.held]
    for role, name in (("origin", source.origin), ("destination", source.destination)):
        if name is not None:
            codes = indices_of_codes(_texts(sample[name].drop_null()), public.cities.index)
            known, held = (float(good.mean()) if len(codes) else 0.0 for good in (codes >= 0, np.isin(codes, own)))
            found = f"unknown codes {_share(1 - known)}" + (f", held {_share(held)}" if role == "origin" else "")
            _graded(report, role, name, found, good=held if role == "origin" else known, empty=not len(codes))
    if source.ip is not None and source.ip_database is not None:
        with report.trying("addresses"):
            ip_map = None if source.ip_cities is None else settings.base / source.ip_cities
            book = AddressBook(
                settings.base / source.ip_database, public.cities, geonames=ip_map, country=source.country
            )
            _, status = book.origins(_texts(sample[source.ip]))
            _graded(report, "addresses", source.ip, _shares(status, OriginStatus), good=float((status == 0).mean()))
    if source.text is not None:
        with report.trying("texts"):
            read = TextReader(public.cities, public.keywords, settings.config.rules).read(_texts(sample[source.text]))
            job = read.status == TextStatus.OK
            _graded(report, "texts", source.text, _shares(read.status, TextStatus), good=float(job.mean()))
            if job.any():
                report.ok("destinations", "of the job queries: " + _shares(read.place[job], Place), column=source.text)


def balance_of(settings: HolderSettings, sample: pa.Table, public: PublicInputs) -> Balance:
    """The steps of the ingest on the sample, under a secret that is thrown away, in a folder that is removed."""
    with tempfile.TemporaryDirectory(prefix="migrafed-check-") as folder:
        staged = ingest(
            _Sample(sample),
            settings.config.job_queries,
            calendar=settings.calendar,
            cities=public.cities,
            held=public.held,
            keywords=public.keywords,
            rules=settings.config.rules,
            keys=KeyedHash(os.urandom(32)),
            out=Path(folder) / "staged",
            buckets=1,
            base=settings.base,
        )
    staged.balance.check()
    return staged.balance


def balance_findings(balance: Balance, report: _Report) -> None:
    """How much of the sample is left, and the largest reasons for what is not."""
    left = balance.rows_out / balance.rows_in
    reasons = sorted(balance.dropped().items(), key=lambda item: -item[1])[:3]
    largest = "; ".join(f"{name} {_share(rows / balance.rows_in)}" for name, rows in reasons)
    found = f"{_share(left)} of the rows would be counted" + (f"; dropped most: {largest}" if largest else "")
    if left:
        report.ok("ingest", found)
    else:
        report.failed("ingest", found, "see the shares below: nothing of this sample would be released")


class _Sample:
    """A table in memory as a `RowSource`."""

    def __init__(self, table: pa.Table) -> None:
        self._table, self.name, self.schema = table, "sample", table.schema
        self.rows: int | None = len(table)
        self.bytes: int | None = table.nbytes

    def batches(self, columns: Sequence[str], *, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """All of it."""
        yield from self._table.select(list(columns)).to_batches(max_chunksize=rows)

    def sample(self, columns: Sequence[str], *, rows: int) -> pa.Table:
        """Its beginning."""
        return self._table.select(list(columns)).slice(0, rows)


def _graded(report: _Report, check: str, column: str, found: str, *, good: float, empty: bool = False) -> None:
    """Failed where nothing at all is recognised; the share says the rest."""
    if good or empty:
        report.ok(check, found, column=column)
    else:
        report.failed(check, found, "is this the right column, and do list, database and terms fit it?", column=column)


def _texts(column: pa.ChunkedArray) -> pa.Array:
    return plain(_combined(column), text=True)


def _combined(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _shares(values: np.ndarray, names: type[OriginStatus] | type[TextStatus] | type[Place]) -> str:
    return ", ".join(
        f"{name.name.lower().replace('_', ' ')} {_share(share)}"
        for name in names
        if (share := float((values == name).mean())) or not name
    )


def _share(value: float) -> str:
    return f"{value:.1%}"


def _size(source: RowSource) -> str:
    parts = [] if source.rows is None else [f"{source.rows:,} rows"]
    return ", ".join([*parts, *([] if source.bytes is None else [f"{source.bytes / 1e6:,.1f} MB"])]) or source.name

"""What a holder's settings and a sample of its rows look like, before anything is released. Changes nothing.

Every figure is a share or a count of the sample; no user key, no text and no address is ever kept, shown or logged. The
figures are functions of raw rows that nobody paid for: they stay with the holder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from clients.check_report import CheckedHolder, Report, Sample, balance_findings, share, size_in_words
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
from tables.balance import Balance
from tables.checks import check_schema
from tables.keyed_hash import KeyedHash
from tables.sources import RowSource
from tables.times import local_days

MUCH, MANY_TIMES = 0.05, 5.0  # a key has much of the rows: this share, and so many times that of a key on average


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
    listener, report = stages or Unheard(), Report()
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


def public_findings(settings: HolderSettings, report: Report) -> PublicInputs | None:
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
    settings: HolderSettings, open_rows: Callable[[], RowSource], report: Report, *, rows: int
) -> pa.Table | None:
    """Rows from all over the source, if it can be opened and has the columns."""
    columns = settings.config.job_queries.columns()
    with report.trying("files"):
        source = open_rows()
        report.ok("files", size_in_words(source))
        found = check_schema(source.schema, settings.config.job_queries.contract())
        report.findings += found
        if any(finding.status == "failed" for finding in found):
            return None
        sample = source.sample(columns, rows=rows)
        if not len(sample):
            report.failed("files", "there are no rows", "give a source that has some")
        return sample
    return None


def policy_findings(settings: HolderSettings, report: Report) -> None:
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


def column_findings(settings: HolderSettings, sample: pa.Table, report: Report) -> None:
    """Types, times, zones and persons."""
    source, calendar = settings.config.job_queries, settings.calendar
    for name in source.columns():
        report.ok("missing values", share(sample[name].null_count / len(sample)), column=name)
    with report.trying("times"):
        days = local_days(sample[source.time], zone=calendar.zone, naive=source.naive_times)
        shares = np.bincount(days.status, minlength=4) / len(sample)
        inside = (calendar.step_of(days.days)[days.status == 0] >= 0).mean() if shares[0] else 0.0
        found = (
            f"readable {share(shares[0])}, missing {share(shares[1])}, without zone {share(shares[2])}, unreadable "
            f"{share(shares[3])}; of the readable inside the grid {share(inside)}"
        )
        if not shares[0]:
            report.failed("times", found, "name their zone in naive_times, or give times with one", column=source.time)
        elif shares[2]:
            report.note("times", found, "name the zone of such times in naive_times", column=source.time)
        else:
            report.ok("times", found, column=source.time)
    person_findings(sample[source.user], source.user, report)


def person_findings(column: pa.ChunkedArray, name: str, report: Report) -> None:
    """How many persons there are, and whether one key has so many rows that it may stand for several."""
    users = plain(_combined(column)).dictionary_encode()
    codes = users.indices.fill_null(0).to_numpy(zero_copy_only=False)
    rows = np.bincount(codes[~is_missing(users)]) if len(users.dictionary) else np.zeros(1, np.int64)
    if not rows.any():
        report.failed("persons", "nobody: every key is missing", "name the column of user keys", column=name)
        return
    persons, most = int((rows > 0).sum()), float(rows.max() / rows.sum())
    found = f"{persons / len(column):.3f} per row of the sample; the key with most rows has {share(most)} of them"
    if most > max(MUCH, MANY_TIMES / persons):
        way_out = "a key that stands for all who are unknown (0, null, guest) protects none of them: make it null"
        report.note("persons", found, way_out, column=name)
    else:
        report.ok("persons", found, column=name)


def content_findings(settings: HolderSettings, sample: pa.Table, public: PublicInputs, report: Report) -> None:
    """City codes, addresses and texts: what is recognised of them."""
    source = settings.config.job_queries
    own = [public.cities.index[code] for code in public.held]
    for role, name in (("origin", source.origin), ("destination", source.destination)):
        if name is not None:
            codes = indices_of_codes(_texts(sample[name].drop_null()), public.cities.index)
            known, held = (float(good.mean()) if len(codes) else 0.0 for good in (codes >= 0, np.isin(codes, own)))
            found = f"unknown codes {share(1 - known)}" + (f", held {share(held)}" if role == "origin" else "")
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
            Sample(sample),
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


def _graded(report: Report, check: str, column: str, found: str, *, good: float, empty: bool = False) -> None:
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
        f"{name.name.lower().replace('_', ' ')} {share(part)}"
        for name in names
        if (part := float((values == name).mean())) or not name
    )

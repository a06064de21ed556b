"""What the checks of a holder share: findings so far, a sample as a source of rows, and how shares are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from protocol.errors import DataError, MigrafedError
from tables.balance import Balance
from tables.checks import Finding
from tables.sources import BATCH_ROWS, RowSource


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
class Report:
    """Findings so far. A check that fails with an error of ours becomes a finding, and the checks go on."""

    findings: list[Finding] = field(default_factory=list)

    def ok(self, check: str, found: str, *, column: str = "") -> None:
        """All is well."""
        self.findings.append(Finding(check=check, column=column, status="ok", found=found, way_out=""))

    def note(self, check: str, found: str, way_out: str, *, column: str = "") -> None:
        """Worth knowing before anything is done with the rows."""
        self.findings.append(Finding(check=check, column=column, status="note", found=found, way_out=way_out))

    def failed(self, check: str, found: str, way_out: str, *, column: str = "") -> None:
        """Nothing can be done with the table as it is."""
        self.findings.append(Finding(check=check, column=column, status="failed", found=found, way_out=way_out))

    def add(self, check: str, found: str, way_out: str, *, well: bool, column: str = "") -> None:
        """All is well, or else a note."""
        if well:
            self.ok(check, found, column=column)
        else:
            self.note(check, found, way_out, column=column)

    @contextmanager
    def trying(self, check: str) -> Iterator[None]:
        """An error of ours inside is the finding of this check."""
        try:
            yield
        except MigrafedError as error:
            problem, way_out = _parted(error)
            self.failed(check, problem, way_out or "see there")


def _parted(error: MigrafedError) -> tuple[str, str]:
    """The problem and the way out, which is what stands last in every error of ours."""
    text = str(error)
    way_out = error.way_out if isinstance(error, DataError) else text.rpartition("; ")[2]
    return (text.removesuffix(way_out).rstrip("; "), way_out) if way_out != text else (text, "")


class Sample:
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


def share(value: float) -> str:
    """A share in words."""
    return f"{value:.1%}"


def size_in_words(source: RowSource) -> str:
    """Rows and bytes of a source, as far as they are known."""
    parts = [] if source.rows is None else [f"{source.rows:,} rows"]
    return ", ".join([*parts, *([] if source.bytes is None else [f"{source.bytes / 1e6:,.1f} MB"])]) or source.name


def balance_findings(balance: Balance, report: Report) -> None:
    """How much of the sample is left, and the largest reasons for what is not."""
    gone = sum(balance.dropped().values())
    left = 1 - gone / balance.rows_in if balance.rows_in else 0.0
    reasons = sorted(balance.dropped().items(), key=lambda item: -item[1])[:3]
    largest = "; ".join(f"{name} {share(rows / balance.rows_in)}" for name, rows in reasons)
    found = f"{share(left)} of the rows would be counted" + (f"; dropped most: {largest}" if largest else "")
    if left:
        report.ok("ingest", found)
    else:
        report.failed("ingest", found, "see the shares below: nothing of this sample would be counted")

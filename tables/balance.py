"""Where every row went: rows in, rows out and why, step by step, adding up exactly.

    rows out of a step = rows in - sum of dropped - merged
    rows into a step   = rows out of the step before

A balance is a function of raw data. It stays with the holder: never in a report, a card or a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from protocol.errors import DataError


@dataclass(frozen=True)
class StepCount:
    """One step: `rows_in`, rows dropped by reason, rows `merged` into others, rows `split_off` (one row, more rows).

    `split_off` is other than 0 where a row becomes several: a query in weights that names several cities, or a call
    with its two parties.

    Raises:
        DataError: a count is negative, or more rows leave than came in.
    """

    name: str
    rows_in: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    merged: int = 0
    split_off: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "dropped", MappingProxyType({k: int(v) for k, v in self.dropped.items()}))
        for name in ("rows_in", "merged", "split_off"):
            object.__setattr__(self, name, int(getattr(self, name)))
        if min(self.rows_in, self.merged, self.split_off, *self.dropped.values()) < 0:
            raise _off(f"step '{self.name}' counts fewer than no rows")
        if self.rows_out < 0:
            raise _off(f"step '{self.name}' drops and merges more rows than the {self.rows_in} that came in")

    @property
    def rows_out(self) -> int:
        """Rows that go on to the next step."""
        return self.rows_in - sum(self.dropped.values()) - self.merged + self.split_off

    def __add__(self, other: StepCount) -> StepCount:
        """Both counted together, as for two batches or buckets of one table."""
        if other.name != self.name:
            raise _off(f"step '{self.name}' cannot be added to step '{other.name}'")
        reasons = [*self.dropped, *(reason for reason in other.dropped if reason not in self.dropped)]
        dropped = {reason: self.dropped.get(reason, 0) + other.dropped.get(reason, 0) for reason in reasons}
        return StepCount(
            self.name,
            self.rows_in + other.rows_in,
            dropped,
            self.merged + other.merged,
            self.split_off + other.split_off,
        )

    def as_json(self) -> dict[str, object]:
        """The step as plain values."""
        return {
            "name": self.name,
            "rows_in": self.rows_in,
            "dropped": dict(self.dropped),
            "merged": self.merged,
            "split_off": self.split_off,
            "rows_out": self.rows_out,
        }


@dataclass
class Balance:
    """Rows in and the steps they went through; `check` says whether they join up."""

    rows_in: int
    steps: list[StepCount] = field(default_factory=list)

    @property
    def rows_out(self) -> int:
        """Rows left after the last step."""
        return self.steps[-1].rows_out if self.steps else self.rows_in

    def add(self, step: StepCount) -> None:
        """Append a step.

        Raises:
            DataError: the step does not begin with the rows that the step before left.
        """
        _joined(step, self.rows_out)
        self.steps.append(step)

    def check(self) -> None:
        """Nothing is lost and nothing is counted twice.

        Raises:
            DataError: a step does not begin with the rows that the step before left; names the step and both counts.
        """
        left = self.rows_in
        for step in self.steps:
            _joined(step, left)
            left = step.rows_out

    def dropped(self) -> dict[str, int]:
        """Rows dropped by ``step: reason``, zeros left out."""
        return {f"{s.name}: {reason}": rows for s in self.steps for reason, rows in s.dropped.items() if rows}

    def __add__(self, other: Balance) -> Balance:
        """Both counted together, as for two batches or buckets of one table; the steps must be the same."""
        names, others = [step.name for step in self.steps], [step.name for step in other.steps]
        if names != others:
            raise _off(f"balances of different steps cannot be added ({', '.join(names)} and {', '.join(others)})")
        steps = [a + b for a, b in zip(self.steps, other.steps, strict=True)]
        return Balance(self.rows_in + other.rows_in, steps)

    def as_json(self) -> dict[str, object]:
        """The balance as plain values, for a file that stays with the holder."""
        return {"rows_in": self.rows_in, "rows_out": self.rows_out, "steps": [step.as_json() for step in self.steps]}

    def lines(self) -> list[str]:
        """A table in plain text: a line per step, below it a line per reason with its share of all rows."""
        width = max(len(f"{self.rows_in:,}"), 12)
        lines = [f"{'step':<34}{'rows':>{width}}  share"]
        lines.append(f"{'rows read':<34}{self.rows_in:>{width},}  {_share(self.rows_in, self.rows_in)}")
        for step in self.steps:
            gone = [*((reason, -rows) for reason, rows in step.dropped.items()), ("merged", -step.merged)]
            for reason, rows in [*gone, ("split off", step.split_off)]:
                if rows:
                    lines.append(f"{'  ' + reason:<34}{rows:>{width},}  {_share(abs(rows), self.rows_in)}")
            lines.append(f"{'after ' + step.name:<34}{step.rows_out:>{width},}  {_share(step.rows_out, self.rows_in)}")
        return lines


def _joined(step: StepCount, left: int) -> None:
    if step.rows_in != left:
        raise _off(f"step '{step.name}' begins with {step.rows_in} rows, but the step before left {left}")


def _share(rows: int, of: int) -> str:
    return f"{rows / of:6.1%}" if of else "     -"


def _off(problem: str) -> DataError:
    return DataError(
        problem, way_out="this is a defect of the program or of the staged files; release nothing from them"
    )

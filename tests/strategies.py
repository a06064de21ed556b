"""Hypothesis strategies: small series of counts, their splits among holders, and windows."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dhgsil.series import ODSeries, Provenance, Regions, Step
from dhgsil.steps import next_step
from dhgsil.windows import Span

STEPS: tuple[Step, ...] = ("day", "week", "month")


def make_regions(num_regions: int) -> Regions:
    """Regions R0, R1, .. on a grid of degrees."""
    codes = tuple(f"R{number}" for number in range(num_regions))
    lat, lon = np.divmod(np.arange(num_regions, dtype=np.float64), 4)
    return Regions(codes, tuple(f"Région {code}" for code in codes), lat, 100.0 + lon)


def make_times(num_steps: int, step: Step = "day", start: str = "2020-01-01") -> np.ndarray:
    """Regular times (T,) from `start`."""
    times = np.full(num_steps, np.datetime64(start, "D"))
    for place in range(1, num_steps):
        times[place] = next_step(times[place - 1], step)
    return times


def make_series(counts: np.ndarray, step: Step = "day", start: str = "2020-01-01") -> ODSeries:
    """A series in which every origin is observed, around counts (T, N, N)."""
    size = counts.shape[1]
    return ODSeries(
        counts=counts.astype(np.int64),
        times=make_times(len(counts), step, start),
        step=step,
        regions=make_regions(size),
        provenance=Provenance(source="made up for a test", measure="synthetic job-query intention"),
        observed=np.ones(size, dtype=np.bool_),
    )


@st.composite
def series(draw: st.DrawFn, *, max_steps: int = 6, max_regions: int = 4) -> ODSeries:
    """Small series, with all-zero rows, steps and whole series among them; two regions and one step at least."""
    num_steps, size = draw(st.integers(1, max_steps)), draw(st.integers(2, max_regions))
    counts = draw(hnp.arrays(np.int64, (num_steps, size, size), elements=st.integers(0, 9) | st.integers(0, 10**9)))
    if draw(st.booleans()):
        counts[draw(st.integers(0, num_steps - 1))] = 0
    return make_series(counts, draw(st.sampled_from(STEPS)))


@st.composite
def partitions(draw: st.DrawFn, codes: tuple[str, ...]) -> list[list[str]]:
    """Codes dealt out to holders, each with one at least."""
    holder_of = draw(st.lists(st.integers(0, 2), min_size=len(codes), max_size=len(codes)))
    parts = [[code for code, mine in zip(codes, holder_of, strict=True) if mine == holder] for holder in range(3)]
    return [part for part in parts if part]


@st.composite
def spans(draw: st.DrawFn, *, max_stop: int = 40) -> Span:
    """Non-empty spans of target steps."""
    start = draw(st.integers(0, max_stop - 1))
    return Span(start, draw(st.integers(start + 1, max_stop)))

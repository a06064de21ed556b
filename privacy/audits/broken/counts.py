"""The count release with one mistake in it: noise, contribution bounds, public lists, shares of several holders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from privacy.audits.defect import Defect, planted
from privacy.audits.subject import CountingCase, Subject
from privacy.bounding import BoundedCounts, CountGrid, Persons, Places
from privacy.plan import CountReleasePlan
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts

Queries = Mapping[str, np.ndarray]


def _with_plan(change: Callable[[CountReleasePlan], CountReleasePlan]) -> Callable[[Subject], Subject]:
    """Release with another plan than the one that is charged."""

    def plant(subject: Subject) -> Subject:
        def release(queries: Queries, plan: CountReleasePlan, stream: SecureStream) -> NoisyCounts:
            return subject.release(queries, change(plan), stream)

        return replace(subject, release=release)

    return plant


def _quieter(cells: float, margins: float) -> Callable[[CountReleasePlan], CountReleasePlan]:
    def change(plan: CountReleasePlan) -> CountReleasePlan:
        noise = {"cells_stddev": cells * plan.cells_stddev}
        if plan.margins_stddev is not None:
            noise["margins_stddev"] = margins * plan.margins_stddev
        return plan.model_copy(update=noise)

    return change


@planted("noise on non-zero cells only", "cells in which nobody was counted are released as zeros")
def _sparse_noise(subject: Subject) -> Subject:
    def release(queries: Queries, plan: CountReleasePlan, stream: SecureStream) -> NoisyCounts:
        noisy = subject.release(queries, plan, stream)
        values = {name: np.where(queries[name] == 0, 0, noise) for name, noise in noisy.values.items()}
        return NoisyCounts(values=values, stddev=noisy.stddev)

    return replace(subject, release=release)


@planted("counts released with a fixed seed", "every release draws its noise from the same key")
def _seeded_release(subject: Subject) -> Subject:
    def release(queries: Queries, plan: CountReleasePlan, _stream: SecureStream) -> NoisyCounts:
        return subject.release(queries, plan, SecureStream(bytes(32)))

    return replace(subject, release=release)


@planted("k enforced per day instead of per period", "a person counts k times on every day of the period")
def _k_per_day(subject: Subject) -> Subject:
    def bound(
        persons: Persons, steps: Places, origins: Places, destinations: Places, *, grid: CountGrid, contributions: int,
        secret: bytes,
    ) -> BoundedCounts:  # fmt: skip
        columns = [np.asarray(column) for column in (persons, steps, origins, destinations)]
        day = replace(grid, times=1)
        parts = []
        for step in range(grid.times):
            who, when, *where = (column[columns[1] == step] for column in columns)
            parts.append(
                subject.bound(who, np.zeros_like(when), *where, grid=day, contributions=contributions, secret=secret)
            )
        return BoundedCounts(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("cells", "inflow", "outflow"))
        )

    return replace(subject, bound=bound)


@planted("margins without their own rule", "in- and outflows are sums of the bounded cells")
def _summed_margins(subject: Subject) -> Subject:
    def bound(
        persons: Persons, steps: Places, origins: Places, destinations: Places, *, grid: CountGrid, contributions: int,
        secret: bytes,
    ) -> BoundedCounts:  # fmt: skip
        cells = subject.bound(
            persons, steps, origins, destinations, grid=grid, contributions=contributions, secret=secret
        ).cells
        away = cells * (grid.columns()[:, None] != np.arange(grid.destinations))
        return BoundedCounts(cells, inflow=away.sum(axis=1), outflow=away.sum(axis=2))

    return replace(subject, bound=bound)


@planted("events counted, not persons", "a person who comes back to a cell counts in it again")
def _events_counted(subject: Subject) -> Subject:
    def bound(
        persons: Persons, steps: Places, origins: Places, destinations: Places, *, grid: CountGrid, contributions: int,
        secret: bytes,
    ) -> BoundedCounts:  # fmt: skip
        found = subject.bound(
            persons, steps, origins, destinations, grid=grid, contributions=contributions, secret=secret
        )
        places = np.ravel_multi_index((np.asarray(steps), np.asarray(origins), np.asarray(destinations)), grid.shape)
        events = np.bincount(places, minlength=math.prod(grid.shape)).reshape(grid.shape)
        return BoundedCounts(np.where(found.cells > 0, events, 0), found.inflow, found.outflow)

    return replace(subject, bound=bound)


@planted("city list taken from raw counts", "only places where somebody was counted are part of the release")
def _seen_places(subject: Subject) -> Subject:
    return replace(subject, counting=_SeenPlaces(subject.counting))


@planted("scaler taken from raw counts", "what training is scaled with is computed from the counts without noise")
def _raw_scale(subject: Subject) -> Subject:
    return replace(subject, counting=_RawScale(subject.counting))


class _OtherCounting:
    """A counting case as it is; subclasses change one step of it."""

    def __init__(self, case: CountingCase) -> None:
        self.case, self.name = case, case.name

    def tables(self) -> tuple[Any, Any]:
        return self.case.tables()

    def queries(self, raw: Any) -> Queries:
        return self.case.queries(raw)

    def derived(self, raw: Any, noisy: NoisyCounts) -> Queries:
        return self.case.derived(raw, noisy)


class _SeenPlaces(_OtherCounting):
    def queries(self, raw: Any) -> Queries:
        whole = self.case.queries(raw)
        cells = whole["cells"]
        rows, columns = cells.any(axis=(0, 2)), cells.any(axis=(0, 1))
        return {
            "cells": cells[:, rows][:, :, columns],
            "inflow": whole["inflow"][:, columns],
            "outflow": whole["outflow"][:, rows],
        }


class _RawScale(_OtherCounting):
    def derived(self, raw: Any, noisy: NoisyCounts) -> Queries:
        scale = np.sqrt(np.mean(np.square(self.case.queries(raw)["cells"], dtype=np.float64)))
        return {**self.case.derived(raw, noisy), "scale": np.array(scale)}


@planted("noise split among all holders", "shares reach the total only if the dishonest add theirs too")
def _over_all(subject: Subject) -> Subject:
    return replace(subject, holder_stddev=lambda total, *, honest: subject.holder_stddev(total, honest=honest + 2))


@planted("stddev split instead of variance", "each holder adds the total's stddev over the number of holders")
def _stddev_split(subject: Subject) -> Subject:
    return replace(subject, holder_stddev=lambda total, *, honest: subject.holder_stddev(total, honest=honest**2))


@planted("calibrated counts under-noise", "calibrate returns five per cent less noise on the margins")
def _under_noised(subject: Subject) -> Subject:
    class Short(subject.count_plan):
        def calibrate(self, *, epsilon: float, delta: float, margin_share: float = 0.5) -> CountReleasePlan:
            return _quieter(1.0, 0.95)(super().calibrate(epsilon=epsilon, delta=delta, margin_share=margin_share))

    return replace(subject, count_plan=Short)


DEFECTS: tuple[Defect, ...] = (
    _sparse_noise,
    Defect("counts 5 % too quiet", "cells get five per cent less noise than is charged", _with_plan(_quieter(0.95, 1))),
    Defect("margins 5 % too quiet", "in- and outflows get five per cent less noise", _with_plan(_quieter(1, 0.95))),
    _seeded_release,
    _k_per_day,
    _summed_margins,
    _events_counted,
    _seen_places,
    _raw_scale,
    Defect(
        "per-holder noise taken as the total's",
        "a holder adds only its share of three, and is charged as if it had added all",
        _with_plan(_quieter(3**-0.5, 3**-0.5)),
    ),
    _over_all,
    _stddev_split,
    _under_noised,
)

"""Calls of one block of a synthetic city, in order of their start.

Calls on a tie are Poisson, at a rate that follows the day of the week and the holiday. Who calls whom, how long, and
where both are, follows from the two people, the tie and the day. Beside them: numbers nobody knows call each other,
couriers call hundreds once, everybody calls hotlines and short numbers, and a few rows are faulty on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulations.worlds.call_config import CallWorldConfig
from simulations.worlds.call_numbers import NumberTable, make_numbers
from simulations.worlds.call_people import PLACES, Residents, make_residents
from simulations.worlds.call_ties import Ties, make_ties
from simulations.worlds.people import mixed

DAY_MS = 86_400_000
NOWHERE = -1
_WEEKDAYS = np.array([1.05, 1.05, 1.04, 1.04, 1.08, 0.92, 0.82])  # Monday first; mean 1
_HOURS = np.array(
    [2, 1, 1, 1, 1, 3, 12, 30, 55, 70, 72, 66, 58, 55, 58, 60, 62, 66, 68, 64, 52, 36, 18, 6], dtype=float
)
_WORK_HOURS = (9, 18)
_SECOND_SIM = 0.35  # of the ties of somebody with two numbers
_LONGEST_MS = int(3.9 * 3_600_000)
_COURIER_CALLS, _HOTLINE_CALLS = 180, 900  # in a week


@dataclass(frozen=True, eq=False)
class Calls:
    """Rows in order of start. Parties are positions in the block's numbers; ms since the study began, local time.

    Shapes: all (n,). `fault` is 0, 1 unanswered, 2 the second record of a duplicate, 3 cells not recorded.
    """

    caller: np.ndarray
    callee: np.ndarray
    start: np.ndarray
    duration: np.ndarray
    caller_cell: np.ndarray
    callee_cell: np.ndarray
    fault: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, eq=False)
class Block:
    """People, numbers, ties and calls of one block."""

    people: Residents
    numbers: NumberTable
    ties: Ties
    calls: Calls


@dataclass(frozen=True, eq=False)
class _Half:
    """Calls of one origin before they are finished: parties as numbers, times in ms, cells."""

    caller: np.ndarray
    callee: np.ndarray
    start: np.ndarray
    duration: np.ndarray
    caller_cell: np.ndarray
    callee_cell: np.ndarray


class BlockMaker:
    """Draws blocks; the same seed and block give the same rows, whichever were drawn before."""

    def __init__(self, config: CallWorldConfig, ground, seed: int) -> None:
        self.config, self.ground, self.seed = config, ground, seed
        self._weights = day_weights(config)
        self._edges = np.concatenate([[0.0], np.cumsum(self._weights)])
        self._hours = np.repeat(
            np.arange(24, dtype=np.int32), np.diff(np.round(np.cumsum([0, *_HOURS]) / _HOURS.sum() * 65536).astype(int))
        )

    def make(self, block: int) -> Block:
        """One block."""
        rng = np.random.default_rng([self.seed, 11, block])
        people = make_residents(self.config, self.ground, block, rng)
        numbers = make_numbers(self.config, people, block, self.seed, rng)
        ties = make_ties(self.config, people, numbers.fringe, rng)
        halves = [
            self._social(people, numbers, ties, rng),
            self._background(numbers, rng),
            self._one_sided(people, numbers, rng),
        ]
        return Block(people, numbers, ties, self._finished(halves, rng))

    def _social(self, people: Residents, numbers: NumberTable, ties: Ties, rng: np.random.Generator) -> _Half:
        tie, day, ms = self._times(people, ties, rng)
        first, other = ties.first[tie], ties.other[tie]
        resident = other < len(people)
        second = np.where(resident, other, first)
        own, theirs = people.course("outgoing", first, day), people.course("outgoing", second, day)
        odds = 1 / (1 + np.exp(np.where(resident, theirs, 0) - own))
        fixed = 0.5 * (people.course("one_way", first, day) + people.course("one_way", second, day))
        steady = rng.random(len(ties), dtype=np.float32)[tie] < fixed
        u = np.where(steady, rng.random(len(ties), dtype=np.float32)[tie], rng.random(len(tie), dtype=np.float32))
        out = u < odds
        seconds = 0.5 * (people.course("log_seconds", first, day) + people.course("log_seconds", second, day))
        duration = _durations(seconds, self.config.call_sd, rng)
        one = self._number(people, numbers, first, tie, day, 1)
        two = self._number(people, numbers, second, tie, day, 2)
        two = np.where(resident, two, numbers.fringe_at + other - len(people))
        cell_one = self._where(people, first, day, ms)
        cell_two = np.where(resident, self._where(people, second, day, ms), self._fixed_cell(two))
        return _Half(
            np.where(out, one, two), np.where(out, two, one), day * np.int64(DAY_MS) + ms, duration,
            np.where(out, cell_one, cell_two), np.where(out, cell_two, cell_one),
        )  # fmt: skip

    def _times(self, people: Residents, ties: Ties, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Tie, day and ms of the day of each call on a tie."""
        days = self.config.calendar.days
        resident = ties.other < len(people)
        gone = np.minimum(people.gone[ties.first], people.gone[np.where(resident, ties.other, ties.first)])
        begin = np.interp(ties.begin, np.arange(days + 1), self._edges)
        end = np.interp(np.minimum(ties.end, gone), np.arange(days + 1), self._edges)
        rate = self.config.weekly_calls / self.config.ties / 7 * ties.strength
        most = np.maximum(people.course("calls", ties.first, ties.begin), people.course("calls", ties.first, days))
        tie = np.repeat(np.arange(len(ties)), rng.poisson(rate * np.maximum(most * (end - begin), 0)))
        day = self._days(begin[tie] + rng.random(len(tie)) * (end - begin)[tie])
        kept = rng.random(len(tie), dtype=np.float32) * most[tie] <= people.course("calls", ties.first[tie], day)
        return tie[kept], day[kept], self._ms(int(kept.sum()), rng)

    def _days(self, position: np.ndarray) -> np.ndarray:
        """Days from positions on the scale of summed weights."""
        day = np.searchsorted(self._edges, position, side="right") - 1
        return np.clip(day, 0, self.config.calendar.days - 1).astype(np.int16)

    def _ms(self, count: int, rng: np.random.Generator) -> np.ndarray:
        hour = self._hours[rng.integers(0, 65536, count, dtype=np.uint16)]
        return hour * 3_600_000 + rng.integers(0, 3_600_000, count, dtype=np.int32)

    def _number(self, people: Residents, numbers: NumberTable, person, tie, day, side: int) -> np.ndarray:
        """The number that a person uses on a tie and day. Shapes: (n,) -> (n,) int32"""
        on_second = mixed(tie.astype(np.uint64), side) >> np.uint64(40) < np.uint64(_SECOND_SIM * 2**24)
        second = (people.dual[person] & on_second) | (day >= people.switch[person])
        return np.where(second, numbers.second[person], person).astype(np.int32)

    def _where(self, people: Residents, person: np.ndarray, day: np.ndarray, ms: np.ndarray) -> np.ndarray:
        """Cell of a person: one place for a part of a day. Shapes: (n,) -> (n,) int32"""
        hour = ms // 3_600_000
        part = (hour >= 9).astype(np.int64) + (hour >= 13) + (hour >= 18)
        draw = mixed((person.astype(np.int64) << 12 | day.astype(np.int64) << 2 | part).astype(np.uint64), 23)
        roams = (draw >> np.uint64(40)).astype(np.float32) / 2**24 < people.course("roaming", person, day)
        working = (part >= 1) & (part <= 2) & (self._weights[day] > 0.93)
        place = np.where(roams, 2 + (draw & np.uint64(0xFFFF)) % np.uint64(PLACES - 2), working)
        return people.places[person, place.astype(np.int64)]

    def _fixed_cell(self, number: np.ndarray) -> np.ndarray:
        return (mixed(number.astype(np.uint64), 31) % np.uint64(self.config.cells)).astype(np.int32)

    def _background(self, numbers: NumberTable, rng: np.random.Generator) -> _Half:
        """Numbers nobody knows, with their like: few contacts each, several calls."""
        ties = rng.poisson(self.config.background_calls * numbers.fringe / 2 / 3)
        one, two = numbers.fringe_at + rng.integers(0, numbers.fringe, (2, ties), dtype=np.int32)
        tie = np.repeat(np.flatnonzero(one != two), rng.poisson(3.0, int((one != two).sum())))
        out = rng.random(len(tie)) < 0.5
        caller, callee = np.where(out, one[tie], two[tie]), np.where(out, two[tie], one[tie])
        start = self._anytime(len(tie), rng)
        return _Half(
            caller, callee, start, _durations(np.full(len(tie), 4.2), self.config.call_sd, rng),
            self._fixed_cell(caller), self._fixed_cell(callee),
        )  # fmt: skip

    def _anytime(self, count: int, rng: np.random.Generator) -> np.ndarray:
        day = self._days(rng.random(count) * self._edges[-1])
        return day * np.int64(DAY_MS) + self._ms(count, rng)

    def _one_sided(self, people: Residents, numbers: NumberTable, rng: np.random.Generator) -> _Half:
        """Couriers call, hotlines and short numbers are called. A newcomer who is not there yet is not called."""
        weeks, somebody = self.config.calendar.weeks, _Somebody(people)
        courier = np.repeat(numbers.couriers, rng.poisson(_COURIER_CALLS * weeks, len(numbers.couriers)))
        hotline = np.repeat(numbers.hotlines, rng.poisson(_HOTLINE_CALLS * weeks, len(numbers.hotlines)))
        count = rng.poisson(self.config.service_calls * weeks * len(people))
        service = numbers.services[rng.integers(0, len(numbers.services), count)]
        special = np.concatenate([courier, hotline, service]).astype(np.int32)
        calls_out = np.arange(len(special)) < len(courier)
        person, start = somebody.drawn(len(special), rng), self._anytime(len(special), rng)
        day, ms = (start // DAY_MS).astype(np.int16), start % DAY_MS
        there = (day >= people.arrival[person]) & (day < people.gone[person])
        number = np.where(day >= people.switch[person], numbers.second[person], person).astype(np.int32)
        log_seconds = np.where(calls_out, 2.7, 4.5)
        duration = _durations(log_seconds, 0.4, rng)
        at = self._where(people, person, day, ms)
        special_cell = np.where(special >= numbers.services[0], NOWHERE, self._fixed_cell(special + start // DAY_MS))
        half = _Half(
            np.where(calls_out, special, number), np.where(calls_out, number, special), start, duration,
            np.where(calls_out, special_cell, at), np.where(calls_out, at, special_cell),
        )  # fmt: skip
        return _Half(*(getattr(half, name)[there] for name in half.__dataclass_fields__))

    def _finished(self, halves: list[_Half], rng: np.random.Generator) -> Calls:
        """All calls in order, faults planted."""
        columns = {
            name: np.concatenate([getattr(half, name) for half in halves]) for name in _Half.__dataclass_fields__
        }
        order = np.argsort(columns["start"], kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
        config, u = self.config, rng.random(len(order), dtype=np.float32)
        bounds = np.cumsum([config.unanswered_share, config.duplicate_share, config.no_cell_share])
        fault = np.select([u < bounds[0], u < bounds[1], u < bounds[2]], [1, 2, 3], 0).astype(np.int8)
        columns["duration"][fault == 1] = 0
        for name in ("caller_cell", "callee_cell"):
            columns[name][fault == 3] = NOWHERE
        again = np.repeat(np.arange(len(order)), 1 + (fault == 2))
        second = np.concatenate([[False], again[1:] == again[:-1]])
        columns = {name: column[again] for name, column in columns.items()}
        fault = np.where(fault[again] == 2, np.where(second, 2, 0), fault[again]).astype(np.int8)
        return Calls(**columns, fault=fault)


class _Somebody:
    """People of the city in proportion to their activity."""

    def __init__(self, people: Residents) -> None:
        self._edges = np.cumsum(people.activity)

    def drawn(self, count: int, rng: np.random.Generator) -> np.ndarray:
        drawn = np.searchsorted(self._edges, rng.random(count) * self._edges[-1], side="right")
        return np.minimum(drawn, len(self._edges) - 1).astype(np.int32)


def _durations(log_seconds: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Log-normal milliseconds. Shapes: (n,) -> (n,) int64"""
    seconds = np.exp(log_seconds + sd * rng.standard_normal(len(log_seconds), dtype=np.float32))
    return np.clip(seconds * 1000, 1000, _LONGEST_MS).astype(np.int64)


def day_weights(config: CallWorldConfig) -> np.ndarray:
    """Calls of each day beside a mean day: day of the week, holidays, workdays made up for. Shapes: -> (days,)"""
    weekday = (config.calendar.start.weekday() + np.arange(config.calendar.days)) % 7
    weights = _WEEKDAYS[weekday]
    weights[list(config.makeup)] = 1.0
    weights[list(config.holiday)] = 0.92 * (1 - config.holiday_dip)
    return weights

"""People of a block of a synthetic city: where they come from and live, how they call, which numbers they have.

A person is born in the city, settled, or a newcomer who arrives during the study. Newcomers of week 2 are the group
the study follows; those of other weeks are there because people arrive in all weeks. Of all people the share
`resident_coverage` has attributes on record. Everybody else is a *fringe* number: somebody whom people of the city
call, and of whom only the number is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from integration.provinces import NUMBER_OF, PROVINCES
from integration.weeks import DAYS_PER_WEEK
from simulations.worlds.call_city import Ground, around_centre, kilometres
from simulations.worlds.call_config import STUDY_LOCALS, STUDY_NEW, STUDY_SETTLED, CallWorldConfig, Course

LOCAL, SETTLED, NEWCOMER = 0, 1, 2
MOVING_DAYS = 21
"""Days after arrival in which habits of newcomers move."""
PLACES = 8
"""Cells of a person: home, work, and others that are visited now and then."""
_ORIGINS = {
    "AH": 26, "JS": 20, "HA": 9, "ZJ": 8, "SC": 6, "JX": 6, "HB": 4.5, "FJ": 3.5, "SD": 3.5, "HN": 2.5, "GZ": 2,
    "CQ": 2, "SN": 1.3, "HL": 1.2, "GD": 1, "LN": 0.8, "JL": 0.8, "SX": 0.7, "GS": 0.6, "HE": 0.8, "YN": 0.6,
    "GX": 0.6, "BJ": 0.3, "TW": 0.3, "OTHER": 0.5,
}  # fmt: skip
_LEAST_ACTIVITY = (0.08, 0.08, 0.35)  # who has just arrived has calls to make
_UNIVERSITY_KM = 1.5
_LEAVERS_KM, _LEAVERS_ZIPF, _LEAVERS_RADIUS = 0.74, 0.34, 0.75
"""What leavers do otherwise: live nearer to the centre, call few of their contacts, stay around home."""
_LONGEST_KM = 60.0


@dataclass(frozen=True, eq=False)
class Residents:
    """People of a block, R of them.

    Shapes: all (R,), but places (R, PLACES) and operators (R, 2): of the first and the second number, -1 for none.
    `arrival` is the day of arrival (below 0: before the study; locals: int16 min), `gone` the first day after
    departure. A habit on day t is base + slope · min(t, settles). `dual` have two numbers at a time; `switch` is the
    day from which the second number replaces the first (32767: never).
    """

    kind: np.ndarray
    arrival: np.ndarray
    gone: np.ndarray
    leaves: np.ndarray
    student: np.ndarray
    light: np.ndarray
    province: np.ndarray
    sex: np.ndarray
    birth_year: np.ndarray
    known: np.ndarray
    birthplace_known: np.ndarray
    activity: np.ndarray
    places: np.ndarray
    settles: np.ndarray
    base: dict[str, np.ndarray]
    slope: dict[str, np.ndarray]
    operators: np.ndarray
    dual: np.ndarray
    switch: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)

    def course(self, name: str, person: np.ndarray, day: np.ndarray | int) -> np.ndarray:
        """A habit of people on days. Shapes: (n,), (n,) -> (n,) float32"""
        return self.base[name][person] + self.slope[name][person] * np.minimum(day, self.settles[person])


def make_residents(config: CallWorldConfig, ground: Ground, block: int, rng: np.random.Generator) -> Residents:
    """People of one block."""
    kind, arrival = _kinds(config, block, rng)
    count = len(kind)
    leaves = (kind == NEWCOMER) & (rng.random(count) < config.leaver_share)
    student = (kind == NEWCOMER) & ~leaves & (rng.random(count) < config.university_share)
    light = (rng.random(count) < config.light_share) & (kind != NEWCOMER)
    activity = rng.standard_gamma(config.activity_shape, count) / config.activity_shape
    activity = np.where(light, config.light_activity, np.maximum(activity, np.choose(kind, _LEAST_ACTIVITY)))
    origins = np.array([NUMBER_OF[code] for code in _ORIGINS])
    weights = np.array(list(_ORIGINS.values())) / sum(_ORIGINS.values())
    province = np.where(kind == LOCAL, config.city.birthplace, rng.choice(origins, count, p=weights)).astype(np.int8)
    base, slope = _courses(config, kind, arrival, rng)
    base["zipf"] = base["zipf"] + np.where(leaves, _LEAVERS_ZIPF, 0.0).astype(np.float32)
    base["radius"] = base["radius"] * np.where(leaves, _LEAVERS_RADIUS, 1.0).astype(np.float32)
    base["centre_km"] = base["centre_km"] * np.where(leaves, _LEAVERS_KM, 1.0).astype(np.float32)
    known = rng.random(count) < config.resident_coverage
    operators, dual, switch = _numbers(config, province, arrival, rng)
    return Residents(
        kind=kind,
        arrival=arrival,
        gone=_departures(config, arrival, leaves, rng),
        leaves=leaves,
        student=student,
        light=light,
        province=province,
        sex=rng.integers(0, 2, count, dtype=np.int8),
        birth_year=_birth_years(config, kind, student, rng),
        known=known,
        birthplace_known=known & (rng.random(count) >= config.no_birthplace),
        activity=activity,
        places=_places(config, ground, base, student, kind, rng),
        settles=np.where(kind == NEWCOMER, arrival + MOVING_DAYS, config.calendar.days).astype(np.float32),
        base=base,
        slope=slope,
        operators=operators,
        dual=dual,
        switch=switch,
    )


def _kinds(config: CallWorldConfig, block: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Kind and day of arrival, so that groups have the size of the study among those with known birthplaces."""
    up = config.scale / (config.resident_coverage * (1 - config.no_birthplace) * (1 + config.dual_sim))
    per_day = STUDY_NEW * up * np.tile(config.arrivals, config.calendar.weeks)
    per_day[DAYS_PER_WEEK : 2 * DAYS_PER_WEEK] *= config.newcomers
    arrived = np.concatenate([np.full(_part(n, block, config.blocks), day) for day, n in enumerate(per_day)])
    locals_, settled = (_part(n * up, block, config.blocks) for n in (STUDY_LOCALS, STUDY_SETTLED))
    kind = np.repeat(np.array([LOCAL, SETTLED, NEWCOMER], dtype=np.int8), [locals_, settled, len(arrived)])
    before = -rng.integers(45, 3000, settled)
    arrival = np.concatenate([np.full(locals_, np.iinfo(np.int16).min), before, arrived]).astype(np.int16)
    return kind, arrival


def _part(total: float, block: int, blocks: int) -> int:
    """A block's part of a total, so that the parts add up."""
    return int((block + 1) * total / blocks) - int(block * total / blocks)


def _courses(
    config: CallWorldConfig, kind: np.ndarray, arrival: np.ndarray, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every habit as base + slope · day of the study."""
    base, slope = {}, {}
    for name in type(config.habits).model_fields:
        course: Course = getattr(config.habits, name)
        at = np.choose(kind, [course.local, course.settled, course.arrival])
        per_day = np.choose(kind, [0.0, course.settled_weekly / DAYS_PER_WEEK, course.weekly / DAYS_PER_WEEK])
        since = np.where(kind == NEWCOMER, arrival, 0)
        base[name], slope[name] = (at - per_day * since).astype(np.float32), per_day.astype(np.float32)
    base["log_seconds"] += (config.person_sd * rng.standard_normal(len(kind))).astype(np.float32)
    base["outgoing"] += (0.5 * rng.standard_normal(len(kind))).astype(np.float32)
    base["to_locals"] += (config.mixing_sd * rng.standard_normal(len(kind))).astype(np.float32)
    base["zipf"] *= np.exp(0.25 * rng.standard_normal(len(kind))).astype(np.float32)
    base["radius"] *= np.exp(0.4 * rng.standard_normal(len(kind))).astype(np.float32)
    return base, slope


def _departures(config: CallWorldConfig, arrival: np.ndarray, leaves: np.ndarray, rng: np.random.Generator):
    """First day after departure: leavers stay 4 days at least, and are gone before the last week."""
    last = config.calendar.days - DAYS_PER_WEEK
    earliest = np.minimum(np.maximum(arrival, 0) + 4, last)
    gone = earliest + np.floor(rng.random(len(arrival)) * (last - earliest + 1)).astype(np.int16)
    return np.where(leaves, gone, config.calendar.days).astype(np.int16)


def _birth_years(config: CallWorldConfig, kind: np.ndarray, student: np.ndarray, rng: np.random.Generator):
    age = np.choose(kind, [44.0, 36.0, 29.0]) + np.choose(kind, [14.0, 10.0, 8.0]) * rng.standard_normal(len(kind))
    age = np.where(student, rng.integers(18, 24, len(kind)), np.clip(age, 16, 85))
    return (config.calendar.start.year - age).astype(np.int16)


def _numbers(config: CallWorldConfig, province: np.ndarray, arrival: np.ndarray, rng: np.random.Generator):
    """Operators of the two numbers of a person, who has two at a time, and who changes when."""
    count, shares = len(province), np.array(list(config.operators.values()))
    several = len(shares) > 1
    favourite = np.random.default_rng([7, len(shares)]).choice(len(shares), len(PROVINCES), p=shares)
    first = rng.choice(len(shares), count, p=shares)
    tilted = (rng.random(count) < config.operator_tilt) & (province != config.city.birthplace)
    first = np.where(tilted, favourite[province], first)
    another = (first + rng.integers(1, max(2, len(shares)), count)) % len(shares)
    u = rng.random(count)
    switches = (u < config.switch_share) & several & (arrival < 0)
    dual = (u >= config.switch_share) & (u < config.switch_share + config.dual_sim) & (arrival < 0)
    day = rng.integers(1, config.calendar.days - 1, count)
    operators = np.stack([first, np.where(switches | dual, another, -1)], axis=1).astype(np.int8)
    return operators, dual, np.where(switches, day, np.iinfo(np.int16).max).astype(np.int16)


def _places(config: CallWorldConfig, ground: Ground, base: dict, student: np.ndarray, kind: np.ndarray, rng):
    """Cells of home, of work towards the centre, and of others around home. Shapes: -> (R, PLACES) int32"""
    count, radius = len(kind), base["radius"].astype(np.float64)
    x, y = around_centre(rng, base["centre_km"].astype(np.float64), np.choose(kind, [0.45, 0.0, 0.0]))
    at_x, at_y = kilometres(config, *(np.array(part) for part in config.university))
    x = np.where(student, at_x + _UNIVERSITY_KM * rng.standard_normal(count), x)
    y = np.where(student, at_y + _UNIVERSITY_KM * rng.standard_normal(count), y)
    cells = [ground.nearest(x, y)]
    for place in range(1, PLACES):
        scale = (5.0 if place == 1 else 9.0) * radius
        distance = np.minimum(scale * rng.standard_gamma(2.0, count) / 2.0, _LONGEST_KM)
        angle = np.arctan2(-y, -x) + rng.normal(0, 1.2, count)
        cells.append(ground.nearest(x + distance * np.cos(angle), y + distance * np.sin(angle)))
    return np.stack(cells, axis=1)

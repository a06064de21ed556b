"""Rows of a synthetic log of job queries, a block of days at a time.

Counts of searches come first: for each step and pair a negative binomial of the planted rate, spread over the days of
the step by season and weekday. People are then found for them (`people`), each search becomes one row or more, rows
about no job, of employers and of automata are added, and addresses and faults are planted. A block depends on the
world, the seed and its place in time only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from simulations.worlds.address_blocks import Address
from simulations.worlds.people import ERA_DAYS, Intentions, make_people, mixed
from simulations.worlds.query_texts import Kind, lookup
from simulations.worlds.query_world import WEEKDAYS, QueryWorld
from simulations.worlds.seasons import festival_kernel, weeks_from_festival

_BLOCK_ROWS = 250_000
_BOT_LEAST, _BOT_MORE = 230, 120  # rows of an automaton on a day: at least, and a Poisson number more
_BOT_DAYS = 20  # days on which an automaton is active
_DISPERSION_HOME = 400.0
_DAY_MS = 86_400_000
_HOURS = (2, 1, 1, 1, 1, 2, 4, 8, 14, 18, 18, 15, 13, 16, 18, 17, 15, 13, 14, 17, 18, 16, 11, 5)  # relative, from 0 h
_STAYS = np.uint64(int(0.7 * 2**32))  # a person's address is their own in seven of ten rows
_OUTSIDE_DAYS = 400  # a wrong clock lies this far back, beyond the start


@dataclass(frozen=True)
class Block:
    """Some days of one step. Shapes: days int64 since 1970-01-01; cross, home share of the step's searches, (D,)"""

    step: int
    number: int
    days: np.ndarray
    cross: np.ndarray
    home: np.ndarray
    last: bool


@dataclass(frozen=True)
class Searches:
    """What people wanted, before anything went wrong. Shapes: person int32, destination int16 (n,)"""

    person: np.ndarray
    destination: np.ndarray


@dataclass
class Rows:
    """Rows of one block, holder by holder and by time within; all arrays (n,).

    `city` is where the address lies, `place` the city a text is about, `time` in ms since 1970-01-01 UTC.
    """

    holder: np.ndarray
    person: np.ndarray
    time: np.ndarray
    kind: np.ndarray
    place: np.ndarray
    other: np.ndarray
    address: np.ndarray
    city: np.ndarray
    address_draw: np.ndarray
    text_draw: np.ndarray
    no_user: np.ndarray
    outside: np.ndarray
    bot: np.ndarray

    def __len__(self) -> int:
        return len(self.person)


def blocks(world: QueryWorld) -> Iterator[Block]:
    """The world's days cut into blocks of about 250,000 rows, none across two steps."""
    config, calendar = world.config, world.calendar
    edges = np.append(calendar.times, np.datetime64(calendar.end, "D") + 1).astype(np.int64)
    all_days = np.arange(edges[0], edges[-1])
    length = max(1, int(_BLOCK_ROWS * len(all_days) / config.queries))
    weeks = weeks_from_festival(all_days.astype("datetime64[D]"), shift_days=config.festival_shift_days)
    week = WEEKDAYS[(all_days + 3) % 7]
    daily = [week * np.exp(config.festival_strength * festival_kernel(weeks, home=home)) for home in (False, True)]
    for step, (first, after) in enumerate(pairwise(edges)):
        inside = slice(first - edges[0], after - edges[0])
        cross, home = (values[inside] / values[inside].sum() for values in daily)
        for number, low in enumerate(range(0, after - first, length)):
            part = slice(low, low + length)
            days = np.arange(first, after)[part]
            yield Block(step, number, days, cross[part], home[part], last=days[-1] + 1 == after)


class RowMaker:
    """Draws the rows of a world for its holders.

    Args:
        world: The world.
        holders: Codes of the cities of each holder. People of a city with several holders are shared out evenly.
    """

    def __init__(self, world: QueryWorld, holders: Mapping[str, tuple[str, ...]]) -> None:
        config = world.config
        self.world, self._config = world, config
        rates = world.mean_rates()
        self._days = int((np.datetime64(world.calendar.end, "D") - world.calendar.times[0]).astype(np.int64)) + 1
        bots = max(1, round(config.queries * config.bot_share / (_BOT_LEAST + _BOT_MORE) / _BOT_DAYS))
        self.people = make_people(
            rates.sum(axis=1),
            count=config.persons,
            bots=bots,
            rules=config.people_rules,
            rng=self._rng(0),
        )
        self._intentions = Intentions(self.people, rates, config.people_rules, world.seed)
        self.holder_of, self.held = _holders(world, holders, self.people.home, self.people.trait)
        self._tables(rates)
        self._step = -1

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence([self.world.seed, 2, *key])))

    def _tables(self, rates: np.ndarray) -> None:
        config = self._config
        ambiguous = config.ambiguous_share if self.world.places.ambiguous() else 0.0
        damage = [config.unreadable_share, config.too_long_share, config.empty_share]
        named = [config.several_share, config.province_share, ambiguous, config.misspelt_share]
        kinds = [Kind.PLACE, Kind.SEVERAL, Kind.PROVINCE, Kind.AMBIGUOUS, Kind.MISSPELT]
        kinds += [Kind.UNREADABLE, Kind.TOO_LONG, Kind.EMPTY]
        codes = np.array(kinds, dtype=np.uint8)
        named_table = codes[lookup((1 - sum(named + damage), *named, *damage))]
        home = np.array([*[Kind.HOME] * 5, *kinds[5:]], dtype=np.uint8)
        self._kind_of_place = named_table
        self._kind_of_home = home[lookup((1 - sum(damage), 0, 0, 0, 0, *damage))]
        lost = [config.foreign_share, config.private_share, config.unknown_share]
        lost += [config.malformed_share, config.no_address_share]
        self._address_table = lookup((1 - config.ipv6_share - sum(lost), config.ipv6_share, *lost))
        self._repeat_table = lookup(_geometric(config.repeats))
        # Beside another city of its name, or of that one's province, a twin could not be told apart.
        plain = np.array([city for city in range(len(rates)) if city not in self.world.places.twins])
        self._plain_city = plain[np.searchsorted(plain, np.arange(len(rates))) % len(plain)].astype(np.int32)
        self._hour_table = lookup(_HOURS)
        self._city_table = lookup(rates.sum(axis=0) + 1e-9 * rates.sum(), dtype=np.int16)

    def make(self, block: Block) -> tuple[Searches, Rows]:
        """The searches of a block, and the rows of the holders."""
        rng = self._rng(1, block.step, block.number)
        start = self.world.calendar.times[0].astype(np.int64)
        self._intentions.advance(int(block.days[0] - start) // ERA_DAYS)
        cell = self._cells(block, rng)
        n = len(self.world.cities)
        person, destination = self._intentions.searchers(cell, rng), (cell % n).astype(np.int16)
        held = self.holder_of[person] >= 0
        searches = Searches(person[held], destination[held])
        parts = [self._searched(block, person, destination, rng)]
        parts += [self._noise(block, Kind.OTHER, self._config.other_share, rng)]
        parts += [self._noise(block, Kind.EMPLOYER, self._config.employer_share, rng)]
        parts += [self._bots(block, rng)]
        person, day, ms, kind, place = (np.concatenate(column) for column in zip(*parts, strict=True))
        return searches, self._finished(block, person, day, ms, kind, place, rng)

    def _cells(self, block: Block, rng: np.random.Generator) -> np.ndarray:
        """Origin * N + destination of each search, sorted. Shapes: -> (n,) int32"""
        n = len(self.world.cities)
        if block.step != self._step:
            shape = np.full((n, n), self._config.dispersion)
            np.fill_diagonal(shape, _DISPERSION_HOME)
            swing = self._rng(0, block.step).standard_gamma(shape) / shape
            self._step, self._rates = block.step, self.world.truth.rate(block.step) * swing
        rates = self._rates * block.cross.sum()
        np.fill_diagonal(rates, np.diag(self._rates) * block.home.sum())
        return np.repeat(np.arange(n * n, dtype=np.int32), rng.poisson(rates.reshape(-1)))

    def _searched(
        self, block: Block, person: np.ndarray, destination: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, ...]:
        """Rows of searches: person, day, ms, kind, place."""
        count = len(person)
        stays = self.people.home[person] == destination
        u = rng.random(count, dtype=np.float32)
        day = np.where(stays, _by_share(block.home, u), _by_share(block.cross, u))
        ms = self._time_of_day(count, rng)
        unnamed = stays & (rng.integers(0, 65536, count, dtype=np.uint16) >= 65536 * self._config.home_named_share)
        again = self._repeat_table[rng.integers(0, 65536, count, dtype=np.uint16)]
        row = np.repeat(np.arange(count, dtype=np.int32), 1 + again.astype(np.int32))
        repeated = np.flatnonzero(row[1:] == row[:-1]) + 1
        ms = ms[row]
        ms[repeated] += rng.integers(5_000, 1_200_000, len(repeated), dtype=np.int32)
        draw = rng.integers(0, 65536, len(row), dtype=np.uint16)
        kind = np.where(unnamed[row], self._kind_of_home[draw], self._kind_of_place[draw])
        return person[row], block.days[day[row]], np.minimum(ms, _DAY_MS - 1), kind, destination[row]

    def _noise(self, block: Block, kind: Kind, share: float, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Rows of persons that are about no job, as many on every day."""
        count = int(rng.poisson(self._config.queries * share * len(block.days) / self._days))
        place = self._city_table[rng.integers(0, 65536, count, dtype=np.uint16)]
        day = block.days[rng.integers(0, len(block.days), count)]
        person = self._intentions.anybody(count, rng)
        return person, day, self._time_of_day(count, rng), np.full(count, kind, dtype=np.uint8), place

    def _bots(self, block: Block, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Rows of automata: always good job queries, hundreds of one automaton on one day."""
        rows = self._config.queries * self._config.bot_share * len(block.days) / self._days
        active = int(rng.poisson(rows / (_BOT_LEAST + _BOT_MORE)))
        which = self.people.count + rng.integers(0, self.people.num_bots, active, dtype=np.int32)
        row = np.repeat(np.arange(active), _BOT_LEAST + rng.poisson(_BOT_MORE, active))
        day = block.days[rng.integers(0, len(block.days), active)]
        place = rng.integers(0, len(self.world.cities), len(row), dtype=np.int16)
        ms = rng.integers(0, _DAY_MS, len(row), dtype=np.int32)
        return which[row], day[row], ms, np.full(len(row), Kind.PLACE, dtype=np.uint8), place

    def _time_of_day(self, count: int, rng: np.random.Generator) -> np.ndarray:
        hour = self._hour_table[rng.integers(0, 65536, count, dtype=np.uint16)]
        return hour.astype(np.int32) * 3_600_000 + rng.integers(0, 3_600_000, count, dtype=np.int32)

    def _finished(
        self,
        block: Block,
        person: np.ndarray,
        day: np.ndarray,
        ms: np.ndarray,
        kind: np.ndarray,
        place: np.ndarray,
        rng: np.random.Generator,
    ) -> Rows:
        """Addresses and faults added, rows of nobody's cities left out, the rest sorted."""
        count, config = len(person), self._config
        bot = person >= self.people.count
        address = self._address_table[rng.integers(0, 65536, count, dtype=np.uint16)]
        address[bot] = Address.V4
        faults = rng.integers(0, 65536, (2, count), dtype=np.uint16)
        no_user = (faults[0] < round(65536 * config.no_user_share)) & ~bot
        outside = (faults[1] < round(65536 * config.outside_share)) & ~bot
        draw = rng.integers(0, 2**64, count, dtype=np.uint64)
        order = self._order(block, person, day, ms)
        person, day, place, draw = person[order], day[order], place[order].astype(np.int32), draw[order]
        own = mixed(person.astype(np.uint64), 5)
        day = day - (_OUTSIDE_DAYS + self._days) * outside[order]
        return Rows(
            holder=self.holder_of[person],
            person=person,
            time=day * _DAY_MS + ms[order] - 8 * 3_600_000,  # Asia/Shanghai, UTC+8 throughout
            kind=kind[order],
            place=place,
            other=self._another(place, own ^ draw),
            address=address[order],
            city=self._whereabouts(block.step, person, bot[order]),
            address_draw=np.where(draw >> np.uint64(32) < _STAYS, own, draw).astype(np.uint32),
            text_draw=draw,
            no_user=no_user[order],
            outside=outside[order],
            bot=bot[order],
        )

    def _order(self, block: Block, person: np.ndarray, day: np.ndarray, ms: np.ndarray) -> np.ndarray:
        """Rows by holder and minute, those of nobody left out. Keys of 16 and 8 bits sort in linear time."""
        minute = ((day - block.days[0]) * 1440 + ms // 60_000).astype(np.uint16)
        order = np.argsort(minute, kind="stable")
        holder = self.holder_of[person[order]]
        order, holder = order[holder >= 0], holder[holder >= 0]
        return order[np.argsort(holder, kind="stable")]

    def _another(self, place: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """A second city, other than the first, by attraction. Shapes: (n,) -> (n,) int32"""
        city = self._city_table[(draw & np.uint64(0xFFFF)).astype(np.uint16)].astype(np.int32)
        return self._plain_city[np.where(city == place, (city + 1) % len(self.world.cities), city)]

    def _whereabouts(self, step: int, person: np.ndarray, bot: np.ndarray) -> np.ndarray:
        """City of the address: a traveller is in one other city for a whole step. Shapes: (n,) -> (n,) int16"""
        draw = mixed(person.astype(np.uint64), 10_000 + step)
        away = (draw >> np.uint64(40) < np.uint64(self._config.traveller_share * 2**24)) & ~bot
        city = self.people.home[person]
        city[away] = self._city_table[(draw[away] & np.uint64(0xFFFF)).astype(np.uint16)]
        return city


def _by_share(share: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Index drawn by shares. Shapes: share (D,), u (n,) -> (n,)"""
    edges = np.cumsum(share) / share.sum()
    return np.searchsorted(edges, u, side="right").clip(max=len(share) - 1)


def _geometric(mean: float) -> np.ndarray:
    """Chances of 0..19 further rows."""
    q = mean / (1 + mean)
    return (1 - q) * q ** np.arange(20)


def _holders(
    world: QueryWorld, holders: Mapping[str, tuple[str, ...]], home: np.ndarray, trait: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Holder of each person (-1: nobody's city), and which cities each holds. Shapes: (P,) int8, (holders, N) bool"""
    held = np.zeros((len(holders), len(world.cities)), dtype=bool)
    for number, codes in enumerate(holders.values()):
        held[number, world.regions.positions(codes)] = True
    sharing = held.sum(axis=0)
    table = np.full((max(1, int(sharing.max())), len(world.cities)), -1, dtype=np.int8)
    for city in range(len(world.cities)):
        table[: sharing[city], city] = np.flatnonzero(held[:, city])
    pick = (mixed(trait.astype(np.uint64), 3) >> np.uint64(40)).astype(np.int32) % np.maximum(sharing, 1)[home]
    return table[pick, home], held

"""Telephone numbers of a block: whose they are, at which operator, and how they are written.

Positions: first numbers of residents, second numbers, fringe numbers (businesses first), couriers, hotlines, and short
numbers of services, which are the same in all blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from simulations.worlds.call_config import CallWorldConfig
from simulations.worlds.call_people import Residents
from simulations.worlds.people import mixed

SERVICES = ("10086", "10010", "12306", "95588", "110", "12345")
NOBODY = -1
_MOBILE_PRIME = 9_999_999_967  # largest prime below 10^10: multiplication by a constant permutes
_LANDLINE_PRIME = 99_999_989  # and below 10^8


@dataclass(frozen=True, eq=False)
class NumberTable:
    """N numbers of a block.

    Shapes: owner (N,) position of a resident, -1 for others; operator (N,) int8, -1 for services; second (R,) position
    of a resident's second number, -1 for none; couriers, hotlines, services: positions. `fringe_at` is where the
    `fringe` numbers begin.
    """

    text: pa.Array
    owner: np.ndarray
    operator: np.ndarray
    second: np.ndarray
    fringe_at: int
    fringe: int
    couriers: np.ndarray
    hotlines: np.ndarray
    services: np.ndarray

    def __len__(self) -> int:
        return len(self.owner)


def make_numbers(
    config: CallWorldConfig, people: Residents, block: int, seed: int, rng: np.random.Generator
) -> NumberTable:
    """All numbers of one block."""
    count = len(people)
    holders = np.flatnonzero(people.operators[:, 1] >= 0)
    second = np.full(count, NOBODY, dtype=np.int32)
    second[holders] = count + np.arange(len(holders))
    fringe_at = count + len(holders)
    fringe = num_fringe(config, count, len(holders))
    couriers = fringe_at + fringe + np.arange(max(1, round(config.couriers * count)) if config.couriers else 0)
    after = fringe_at + fringe + len(couriers)
    hotlines = after + np.arange(max(1, round(config.hotlines * count)) if config.hotlines else 0)
    services = after + len(hotlines) + np.arange(len(SERVICES))
    others = fringe + len(couriers) + len(hotlines)
    owner = np.concatenate([np.arange(count), holders, np.full(others + len(services), NOBODY)]).astype(np.int32)
    drawn = rng.choice(len(config.operators), others, p=list(config.operators.values()))
    operator = [people.operators[:, 0], people.operators[holders, 1], drawn, np.full(len(services), NOBODY)]
    text = _written(config, block, seed, len(owner) - len(services), fringe_at, fringe, rng)
    return NumberTable(
        text=pa.concat_arrays([text, pa.array(SERVICES)]),
        owner=owner,
        operator=np.concatenate(operator).astype(np.int8),
        second=second,
        fringe_at=fringe_at,
        fringe=fringe,
        couriers=couriers,
        hotlines=hotlines,
        services=services,
    )


def num_fringe(config: CallWorldConfig, residents: int, seconds: int) -> int:
    """So many fringe numbers that the share `attribute_coverage` of all numbers has attributes."""
    attributed = config.resident_coverage * (residents + seconds)
    return max(200, round(attributed / config.attribute_coverage) - residents - seconds)


def _written(
    config: CallWorldConfig, block: int, seed: int, count: int, fringe_at: int, fringe: int, rng: np.random.Generator
) -> pa.Array:
    """11 digits each: mobile numbers begin with 1, landlines with 021. No number is given twice in a city."""
    salt = int(mixed(np.array([seed], dtype=np.uint64), 3)[0])
    position = np.arange(count, dtype=np.uint64) + np.uint64(_first_position(config, block))
    number = 10**10 + _permuted(position, salt, _MOBILE_PRIME)
    landline = np.zeros(count, dtype=bool)
    landline[fringe_at : fringe_at + fringe] = rng.random(fringe) < config.landline_share
    text = pa.array(number).cast(pa.string()).to_numpy(zero_copy_only=False).copy()
    place = _permuted(position[landline] % np.uint64(_LANDLINE_PRIME), salt, _LANDLINE_PRIME)
    text[landline] = [f"021{value:08d}" for value in place.tolist()]
    return pa.array(text, pa.string())


def _first_position(config: CallWorldConfig, block: int) -> int:
    """Blocks have room for a fifth more numbers than they should have."""
    return block * int(
        1.2 * 54_000_000 * max(0.056 / config.attribute_coverage, 1) * config.scale / config.blocks + 20_000
    )


def _permuted(position: np.ndarray, salt: int, prime: int) -> np.ndarray:
    """position · factor modulo a prime, in halves so that nothing overflows. Shapes: (n,) uint64 -> (n,) int64"""
    factor = salt % (prime - 1) + 1
    high, low = position >> np.uint64(14), position & np.uint64(0x3FFF)
    step = np.uint64(factor * 2**14 % prime)
    reduced = (high * step % np.uint64(prime) + low * np.uint64(factor) % np.uint64(prime)) % np.uint64(prime)
    return reduced.astype(np.int64)

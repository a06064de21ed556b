"""A table of events that is counted in milliseconds: what the way to a release is tried on where no task is at hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from privacy.event_table import Events, PublicPlaces, count_events, scale_of
from privacy.release import NoisyCounts

_DAYS, _CITIES = ("d1", "d2", "d3", "d4"), ("A", "B", "C", "D", "E")
_SECRET = bytes(range(16))


class SmallCounting:
    """Thirty made-up persons in five public cities; see `privacy.audits.subject.CountingCase`."""

    name = "small table of events"

    def tables(self) -> tuple[Events, Events]:
        """The table; half of it, without the only person who was ever in the fifth city and on the fourth day."""
        numbers = np.random.default_rng(1)
        times = [f"d{step}" for step in numbers.integers(1, 4, size=60)]
        origins = [str(code) for code in numbers.choice(["A", "B"], size=60)]
        destinations = [str(code) for code in numbers.choice(["B", "C", "D"], size=60)]
        persons = [f"p{row // 2}" for row in range(60)]
        half = Events(persons[:30], times[:30], origins[:30], destinations[:30])
        return Events([*persons, "last"], [*times, "d4"], [*origins, "E"], [*destinations, "E"]), half

    def queries(self, raw: Events) -> Mapping[str, np.ndarray]:
        """Bounded counts on the public grid."""
        return count_events(raw, PublicPlaces(_DAYS, _CITIES, _CITIES), contributions=4, secret=_SECRET).queries()

    def derived(self, raw: Events, noisy: NoisyCounts) -> Mapping[str, np.ndarray]:
        """What is computed after the release: its scale."""
        del raw
        return {"scale": np.array(scale_of(noisy))}


def small_counting() -> SmallCounting:
    """The counting shipped with the audits."""
    return SmallCounting()

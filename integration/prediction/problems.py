"""What is told apart, and from which features.

=============  =========================================  =======================================================
problem        classes, the last one positive             trained on week 2 of
=============  =========================================  =======================================================
T1             local, settled                             locals and settled migrants; new ones are never seen
T2             local, settled, new                        all three
T3             rest, new                                  all three; rest are locals and settled migrants
T3 migrants    settled, new                               migrants
=============  =========================================  =======================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from integration import catalogue
from integration.people import LOCAL, NEW, SETTLED

LEARNT_WEEK = 2
"""Classifiers are trained on a half of this week and never on another."""


@dataclass(frozen=True)
class Problem:
    """A classification of persons.

    Args:
        name: As in tables.
        classes: Names of classes; the last one is the positive of two.
        members: Groups of each class.
    """

    name: str
    classes: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]

    def labels(self, groups: pd.Series) -> np.ndarray:
        """Class number of each row, -1 for groups that are not told apart. Shapes: n -> (n,) int64."""
        number = {group: position for position, members in enumerate(self.members) for group in members}
        return groups.map(number).fillna(-1).to_numpy(np.int64)


T1 = Problem("T1", ("local", "settled"), ((LOCAL,), (SETTLED,)))
T2 = Problem("T2", ("local", "settled", "new"), ((LOCAL,), (SETTLED,), (NEW,)))
T3 = Problem("T3", ("rest", "new"), ((LOCAL, SETTLED), (NEW,)))
T3_MIGRANTS = Problem("T3 migrants", ("settled", "new"), ((SETTLED,), (NEW,)))
PROBLEMS = {problem.name: problem for problem in (T1, T2, T3, T3_MIGRANTS)}

LEAKY, RAREFIED, WITHOUT_FLAGS = "all+townsmen (leaky)", "all-rarefied", "all without flags"
_EXPOSED = ("degree", "in_degree", "out_degree", "n_calls", "move_total")
"""Features without a companion that grow with the number of calls."""


def feature_sets() -> dict[str, tuple[str, ...]]:
    """Rows of the table of results → columns that the classifier takes.

    ``all+townsmen (leaky)`` takes what is made of the label, to show how much it would give away; ``all+known_share``
    how well the operator knows the contacts. ``all-rarefied`` takes the companions of a fixed number of calls and
    leaves out what only grows with the number of calls. ``n_calls`` is what counting calls alone can do.
    """
    companions = catalogue.rarefied()
    everything = catalogue.primary()
    return {
        **{family: catalogue.primary((family,)) for family in catalogue.FAMILIES},
        "all": everything,
        LEAKY: everything + tuple(feature.name for feature in catalogue.FEATURES if feature.leaks),
        RAREFIED: tuple(companions.get(name, name) for name in everything if name not in _EXPOSED),
        WITHOUT_FLAGS: everything,
        "all+known_share": (*everything, "known_share"),
        "n_calls": ("n_calls",),
    }

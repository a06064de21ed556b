"""How many of the "new" are not new: a group that is defined by silence holds everybody who was merely silent.

If a share q of settled migrants is silent in a week by chance, q / (1 - q) times as many as are called settled were
silent in week 1, and those who called in week 2 are called new. Two estimates of how many that is:

* *by silence*: q is the share of settled migrants silent in week 3 among those with calls in all other weeks. Persons
  who call rarely seldom call in all other weeks, so this q is rather too small;
* *by placebo*: among people born in the city, whom nobody takes for new, so many look new per one who looks local.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from integration.people import LOCAL, NEW, PLACEBO, SETTLED
from protocol.errors import DataError

_Z = 1.959963984540054  # 97.5 % point of the normal distribution


@dataclass(frozen=True)
class Silence:
    """What silence alone would do to the group "new".

    Args:
        asked: Settled migrants with calls in all weeks but the one asked about, and with or without calls in that one.
        silent: Those without.
        share: q = silent / asked; NaN if nobody was asked.
        low: Lower end of its 95 % interval (Wilson).
        high: Upper end.
        new: Persons called new.
        expected: Settled migrants expected among them, by silence.
        expected_by_placebo: The same, by placebo locals.
    """

    asked: int
    silent: int
    share: float
    low: float
    high: float
    new: int
    expected: float
    expected_by_placebo: float

    @property
    def contamination(self) -> float:
        """Share of the new that is expected to be settled, by silence; at most 1, NaN if nobody is new."""
        return min(1.0, self.expected / self.new) if self.new else math.nan

    @property
    def contamination_by_placebo(self) -> float:
        """The same, by placebo locals."""
        return min(1.0, self.expected_by_placebo / self.new) if self.new else math.nan


def silent_share(people: pd.DataFrame, *, weeks: int = 4, week: int = 3) -> Silence:
    """Estimate q and the contamination of the new.

    Args:
        people: Table of `integration.people`; `group` and `weeks` (bit w - 1: a call in week w) are used.
        weeks: Weeks of the study.
        week: The week asked about; neither the first nor the second, which define the groups.

    Raises:
        DataError: the week asked about is not one of 3 .. `weeks`.
    """
    if not 3 <= week <= weeks:
        raise DataError(f"week {week} is not in 3..{weeks}", way_out="ask about a week that defines no group")
    groups, active = people["group"].to_numpy(), people["weeks"].to_numpy(dtype=np.int64)
    every, bit = (1 << weeks) - 1, 1 << (week - 1)
    settled = groups == SETTLED
    asked = settled & ((active | bit) == every)
    silent = asked & ((active & bit) == 0)
    low, high = _wilson(int(silent.sum()), int(asked.sum()))
    share = float(silent.sum() / asked.sum()) if asked.any() else math.nan
    back = float(((active & 2) != 0)[settled].mean()) if settled.any() else math.nan
    odds = share / (1 - share) if share < 1 else math.inf
    return Silence(
        asked=int(asked.sum()),
        silent=int(silent.sum()),
        share=share,
        low=low,
        high=high,
        new=_size(groups, NEW),
        expected=odds * int(settled.sum()) * back,
        expected_by_placebo=_size(groups, PLACEBO) / max(1, _size(groups, LOCAL)) * int(settled.sum()),
    )


def _size(groups: NDArray[np.object_], group: str) -> int:
    return int((groups == group).sum())


def _wilson(hits: int, trials: int) -> tuple[float, float]:
    """Score interval of a share. Source: Wilson 1927, doi:10.1080/01621459.1927.10502953."""
    if trials == 0:
        return math.nan, math.nan
    share, z2 = hits / trials, _Z**2 / trials
    middle = (share + z2 / 2) / (1 + z2)
    reach = _Z / (1 + z2) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials))
    return max(0.0, middle - reach), min(1.0, middle + reach)

"""What each holder of a run has, on one grid, and all of it together.

Holders may share regions: two search engines see different people of one city. Then each has counts of its own in the
city's row, and the row of all together is their sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import numpy as np

from dhgsil.series import ODSeries


@dataclass(frozen=True, eq=False)
class Holdings:
    """The series of each holder by name, and of all together.

    Args:
        parts: Counts of each holder; rows of regions that it does not hold are 0 and not observed.
        pooled: Their sum.
    """

    parts: Mapping[str, ODSeries]
    pooled: ODSeries

    @classmethod
    def split(cls, series: ODSeries, holders: Mapping[str, tuple[str, ...]]) -> Holdings:
        """One series divided by rows, for holders without a region in common."""
        return cls({name: series.held_by(codes) for name, codes in holders.items()}, series)

    @classmethod
    def together(cls, parts: Mapping[str, ODSeries]) -> Holdings:
        """Series that come apart, put together."""
        return cls(parts, reduce(add, parts.values()))

    @cached_property
    def shared(self) -> np.ndarray:
        """Whether two holders or more have rows of a region. Shapes: -> (N,) bool"""
        return np.sum([part.observed for part in self.parts.values()], axis=0) > 1

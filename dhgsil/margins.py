"""Margins: what holders may share about the whole of mobility, as sums that add over holders with disjoint rows.

A holder sees only the rows of its own origins, but inflows, the entropy of a region's inflow and the mobility graph
need everybody's. All of them follow from eight arrays that simply add up::

    margins_of(m_tokyo) + margins_of(m_rest)     # equals margins_of(m_tokyo + m_rest)

Nothing here adds noise. A holder that protects its people makes these arrays of counts that it released with noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from protocol.errors import DataError


@dataclass(frozen=True, eq=False)
class Margins:
    """Additive statistics of an index M (T, N, N); totals and entropies leave the diagonal out.

    Attributes:
        out: Outflow of each region, sum over destinations. Shape (T, N).
        into: Inflow, sum over origins. Shape (T, N).
        diagonal: Flow that stays. Shape (T, N).
        out_mlogm: Sum of m log m over destinations. Shape (T, N).
        in_mlogm: Sum of m log m over origins. Shape (T, N).
        out_log1p: Sum of log1p(m) over all destinations: the level of a region's pairs, small ones too. Shape (T, N).
        in_log1p: Sum of log1p(m) over all origins. Shape (T, N).
        coarse: Mean matrix of each block of steps; block k ends before step (k + 1) T / K. Shape (K, N, N).
        block_steps: Steps per block; a last incomplete block is dropped.
    """

    out: np.ndarray
    into: np.ndarray
    diagonal: np.ndarray
    out_mlogm: np.ndarray
    in_mlogm: np.ndarray
    out_log1p: np.ndarray
    in_log1p: np.ndarray
    coarse: np.ndarray
    block_steps: int

    def __add__(self, other: Margins) -> Margins:
        """Margins of two holders' flows taken together."""
        mine, theirs = self.arrays(), other.arrays()
        if self.block_steps != other.block_steps or any(mine[k].shape != theirs[k].shape for k in mine):
            raise DataError(
                "margins of two holders do not have the same steps, regions and blocks",
                way_out="let all holders compute margins on the same grid with the same block_steps",
            )
        return Margins(**{name: mine[name] + theirs[name] for name in mine}, block_steps=self.block_steps)

    def arrays(self) -> dict[str, np.ndarray]:
        """The additive arrays by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "block_steps"}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], *, block_steps: int) -> Margins:
        """Margins from the arrays another holder, or a sum over holders, gave."""
        needed = {f.name for f in fields(cls)} - {"block_steps"}
        if set(arrays) != needed:
            raise DataError(
                f"margins need the arrays {', '.join(sorted(needed))}, got {', '.join(sorted(arrays))}",
                way_out="compute them with margins_of",
            )
        return cls(
            **{name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}, block_steps=block_steps
        )

    def mean_flow(self, t: int, *, input_steps: int) -> np.ndarray:
        """Mean matrix seen from step t: of the blocks within the last `input_steps` steps, or else of the latest one.

        Only blocks that are complete by t count; before the first one there is no flow at all. With block_steps = 1
        this is exactly the mean over the input window.

        Shapes: -> (N, N)
        """
        first, stop = self.block_range(t, input_steps=input_steps)
        if stop == 0:
            return np.zeros(self.coarse.shape[1:])
        return self.coarse[first:stop].mean(axis=0)

    def training_mean(self, stop: int) -> np.ndarray:
        """Mean matrix over all blocks complete before step `stop`; zeros if there is none. Shapes: -> (N, N)"""
        blocks = min(stop // self.block_steps, len(self.coarse))
        return self.coarse[:blocks].mean(axis=0) if blocks else np.zeros(self.coarse.shape[1:])

    def block_range(self, t: int, *, input_steps: int) -> tuple[int, int]:
        """Half-open range of the blocks `mean_flow` averages; (0, 0) if none is complete."""
        stop = min((t + 1) // self.block_steps, len(self.coarse))
        first = -(-max(0, t + 1 - input_steps) // self.block_steps)
        return (min(first, stop - 1), stop) if stop else (0, 0)


def margins_of(m: np.ndarray, *, block_steps: int = 1) -> Margins:
    """Margins of an index; rows a holder does not see are 0 and add nothing.

    Shapes: m (T, N, N) -> Margins

    Raises:
        DataError: a value of m is negative, so that m log m does not exist.
    """
    if m.size and m.min() < 0:
        raise DataError("the index has negative values, margins need flows >= 0", way_out="use another index")
    off = m * (1 - np.eye(m.shape[1]))
    mlogm = off * np.log(np.where(off > 0, off, 1.0))
    blocks = len(m) // block_steps
    coarse = m[: blocks * block_steps].reshape(blocks, block_steps, *m.shape[1:]).mean(axis=1)
    return Margins(
        out=off.sum(axis=2),
        into=off.sum(axis=1),
        diagonal=np.diagonal(m, axis1=1, axis2=2).astype(np.float64),
        out_mlogm=mlogm.sum(axis=2),
        in_mlogm=mlogm.sum(axis=1),
        out_log1p=np.log1p(m).sum(axis=2),
        in_log1p=np.log1p(m).sum(axis=1),
        coarse=coarse,
        block_steps=block_steps,
    )


def normalised_entropy(totals: np.ndarray, mlogm: np.ndarray) -> np.ndarray:
    """Entropy of shares m / S over log(N - 1), from S = sum m and sum m log m: (log S - sum m log m / S) / log(N - 1).

    0 where there is no flow, or only one partner to choose from. Shapes: (..., N), (..., N) -> (..., N)
    """
    n = totals.shape[-1]
    if n < 3:
        return np.zeros(totals.shape)
    safe = np.where(totals > 0, totals, 1.0)
    entropy = np.where(totals > 0, np.log(safe) - mlogm / safe, 0.0)
    return np.clip(entropy / np.log(n - 1), 0.0, 1.0)

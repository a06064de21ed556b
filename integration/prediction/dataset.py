"""A holder's rows as a dataset to train on, and as additive sums: the halves of week 2 and the weeks after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from integration.prediction.preparing import Preparation
from integration.prediction.problems import LEARNT_WEEK, Problem
from integration.prediction.splits import in_training
from protocol.errors import DataError, PlanError


def labelled(rows: pd.DataFrame, problem: Problem, seed: int) -> pd.DataFrame:
    """Rows that the problem is about, with columns `y` (class number) and `split`, in the order of splits.

    Raises:
        DataError: rows lack a column, or a person has two rows in one week.
    """
    if absent := {"person", "week", "group"} - set(rows.columns):
        raise DataError(f"rows have no column '{min(absent)}'", way_out="make rows with integration.features.assemble")
    y = problem.labels(rows["group"])
    kept = rows.loc[(y >= 0) & (rows["week"] >= LEARNT_WEEK)]
    twice = int(kept.duplicated(["person", "week"]).sum())
    if twice:
        raise DataError(
            f"{twice} row(s) are of a person and a week that have a row already",
            way_out="give one row for each person and week",
        )
    first = kept["week"].to_numpy() == LEARNT_WEEK
    split = np.where(first & in_training(kept, seed), 0, np.where(first, 1, 2))
    kept = kept.assign(y=problem.labels(kept["group"]), split=split)
    return kept.sort_values(["split", "week", "person"], kind="stable", ignore_index=True)


class RowDataset:
    """Rows of one holder, prepared.

    Args:
        rows: As `labelled` gives them.
        weights: Weight of each class in the loss; 1 if classes count as they are. Shape (classes,).
        dropout: Share of hidden units that training leaves out, and their number; none for a linear model.
        counted: Whether others may know how many rows there are; if not, this holder weighs as much as any other.
    """

    def __init__(
        self, rows: pd.DataFrame, preparation: Preparation, weights: np.ndarray, *, seed: int, dropout: float = 0.0,
        units: int = 0, counted: bool = True,
    ) -> None:  # fmt: skip
        self._split = rows["split"].to_numpy()
        self._x = torch.as_tensor(preparation.transform(rows), dtype=torch.float32)
        self._y = torch.as_tensor(rows["y"].to_numpy(np.int64, copy=True))
        self._weight = torch.as_tensor(weights[rows["y"].to_numpy()], dtype=torch.float32)
        self._seed, self._dropout, self._units, self._counted = seed, dropout, units, counted
        self._persons = rows["person"].to_numpy(np.int64).view(np.uint64)
        self.weeks = rows["week"].to_numpy()
        if not len(self.examples("train")):
            raise DataError("this holder has no training row", way_out="leave it out, or check groups and weeks")

    @property
    def num_examples(self) -> int:
        """Training rows: every row weighs the same, whoever holds it; 1 where their number is nobody's business."""
        return len(self.examples("train")) if self._counted else 1

    @property
    def shape_key(self) -> tuple[int, ...]:
        return (*self._x.shape, len(self.examples("train")))

    def examples(self, split: str, /) -> np.ndarray:
        """Row numbers of a split: the training half of week 2, its other half, the weeks after it."""
        wanted = {"train": (0,), "validation": (1,), "train+validation": (0, 1), "test": (2,)}.get(split)
        if wanted is None:
            raise PlanError(f"unknown split '{split}'; use train, validation, train+validation or test")
        return np.flatnonzero(np.isin(self._split, wanted))

    def batch(self, examples: np.ndarray, /) -> dict[str, Tensor]:
        """Shapes: x (B, features), y (B,) int64, weight (B,)."""
        chosen = torch.as_tensor(examples)
        return {"x": self._x[chosen], "y": self._y[chosen], "weight": self._weight[chosen]}

    def training_batch(self, examples: np.ndarray, /, *, draw: int) -> dict[str, Tensor]:
        """`batch` with one draw of masks for all."""
        return self.batch(examples) | self._masks([(draw,)], len(examples))

    def training_examples(self, examples: np.ndarray, /, *, draw: int) -> dict[str, Tensor]:
        """`batch` with a draw of masks for each example, which depends on the step and the person alone.

        Not on its position, which moves when somebody before it is not there.
        """
        draws = [(draw, int(self._persons[number])) for number in examples]
        return self.batch(examples) | self._masks(draws, 1)

    def _masks(self, draws: Sequence[tuple[int, ...]], each: int) -> dict[str, Tensor]:
        if not self._dropout or not self._units:
            return {}
        kept = [
            np.random.default_rng([self._seed, *draw]).random((each, self._units)) >= self._dropout for draw in draws
        ]
        return {"dropout": torch.as_tensor(np.concatenate(kept) / (1 - self._dropout), dtype=torch.float32)}

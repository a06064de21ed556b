"""Halves of week 2 by keyed hash: persons, not rows, and nobody else has a say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from integration.prediction.splits import folds, hashes, in_training, stratified_half
from tests.call_rows import gaussian_rows

ROWS = gaussian_rows(local=500, settled=300, new=41)


def test_each_group_is_halved() -> None:
    half = stratified_half(ROWS, 0)
    first = ROWS["week"] == 2
    assert ROWS[first & half].groupby("group").size().to_dict() == {"local": 250, "settled": 150, "new": 20}


def test_all_rows_of_a_person_are_on_one_side() -> None:
    for half in (stratified_half(ROWS, 1), in_training(ROWS, 1)):
        assert (pd.Series(half).groupby(ROWS["person"]).nunique() == 1).all()
    assert (pd.Series(folds(ROWS, 1)).groupby(ROWS["person"]).nunique() == 1).all()


def test_order_and_later_weeks_have_no_say() -> None:
    """Shuffled rows, and rows of week 2 alone, are cut the same way."""
    half = pd.Series(stratified_half(ROWS, 2), index=ROWS.index)
    shuffled = ROWS.sample(frac=1, random_state=0)
    assert np.array_equal(stratified_half(shuffled, 2), half.loc[shuffled.index])
    early = ROWS[ROWS["week"] == 2]
    assert np.array_equal(stratified_half(early, 2), half.loc[early.index])


def test_the_threshold_needs_no_other_person() -> None:
    """A holder that sees a tenth of the rows cuts them as one who sees all."""
    part = ROWS.iloc[::10]
    assert np.array_equal(in_training(part, 3), in_training(ROWS, 3)[::10])
    assert 0.4 < in_training(ROWS, 3).mean() < 0.6


def test_who_has_no_row_in_week_2_is_not_trained_on() -> None:
    late = ROWS["person"].iloc[0]
    rows = ROWS[(ROWS["person"] != late) | (ROWS["week"] > 2)]
    assert not stratified_half(rows, 0)[(rows["person"] == late).to_numpy()].any()


def test_two_numbers_of_one_identity_stay_together() -> None:
    identity = (ROWS["person"].rank(method="dense").astype(int) // 2).astype(str)
    rows = ROWS.assign(identity=identity)
    for half in (stratified_half(rows, 4), in_training(rows, 4)):
        assert (pd.Series(half).groupby(identity).nunique() == 1).all()
    apart = pd.Series(in_training(ROWS, 4)).groupby(identity).nunique()
    assert (apart == 2).any()


def test_unknown_identities_fall_back_on_numbers() -> None:
    rows = ROWS.assign(identity=None)
    assert np.array_equal(hashes(rows, 5, "x"), hashes(ROWS, 5, "x"))


def test_seeds_and_purposes_differ() -> None:
    assert (stratified_half(ROWS, 0) != stratified_half(ROWS, 1)).mean() > 0.3
    assert not np.array_equal(hashes(ROWS, 0, "a"), hashes(ROWS, 0, "b"))

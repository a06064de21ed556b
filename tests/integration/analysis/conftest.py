"""Rows of Gaussian persons, made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import pytest

from tests.gaussian_rows import EXPECTED, TARGETS, gaussian_rows


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    return gaussian_rows()


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., pd.DataFrame]:
    return gaussian_rows


@pytest.fixture(scope="session")
def expected() -> Mapping[str, str]:
    return EXPECTED


@pytest.fixture(scope="session")
def ten() -> Sequence[str]:
    return tuple(TARGETS)

"""Sums of encoded arrays are the sums of the arrays, no sum can wrap, and what cannot be a sum is refused."""

from __future__ import annotations

import numpy as np

from privacy.secure_aggregation.layout import Layout


def test_sum_of_updates_and_statistics_comes_back() -> None:
    """Updates to a step of the scale, integers exactly, floats to 2^-41; the layout survives its bytes."""
    generator = np.random.default_rng(1)
    holders = [
        {
            "weight": generator.normal(size=(3, 4)) * 1e-2,
            "bias": generator.normal(size=4) * 1e-2,
            "count": generator.integers(-(2**55), 2**55, size=5),
            "loss": generator.normal(size=2) * 1e6,
        }
        for _ in range(5)
    ]
    layout = Layout.for_update(
        {"weight": (3, 4), "bias": (4,)}, clip_norm=1.0, holders=5, exact={k: holders[0][k] for k in ("count", "loss")}
    )
    assert Layout.from_bytes(layout.to_bytes()) == layout
    total = np.zeros(layout.words, dtype=np.uint32)
    for arrays in holders:
        total += layout.encode(arrays)
    sums = layout.decode(total, survivors=5)
    for name in ("weight", "bias"):
        plain = np.sum([arrays[name] for arrays in holders], axis=0)
        assert np.abs(sums[name] - plain).max() <= 5 / 2 / layout.quantiser.scale + 1e-12
    assert sums["count"].dtype == np.int64
    assert (sums["count"] == np.sum([arrays["count"] for arrays in holders], axis=0)).all()
    assert np.abs(sums["loss"] - np.sum([arrays["loss"] for arrays in holders], axis=0)).max() < 1e-8

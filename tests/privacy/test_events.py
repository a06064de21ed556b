"""Events can be written down and read back, and hold no value that an accountant could not mean."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.events import CountNoise, GaussianSteps, PrivacyEvent, event_from_json
from protocol.errors import PrivacyParameterError

noises = st.floats(1e-3, 1e5)
events = st.one_of(
    st.builds(
        GaussianSteps,
        noise_multiplier=noises,
        sampling_rate=st.floats(1e-6, 1.0),
        steps=st.integers(1, 10**6),
    ),
    st.builds(CountNoise, stddev=noises, contributions=st.integers(1, 10**5)),
)


@given(event=events)
def test_json_round_trip(event: PrivacyEvent) -> None:
    """What a ledger wrote is what an accountant reads, to the last bit."""
    assert event_from_json(json.loads(json.dumps(event.to_json()))) == event


@pytest.mark.parametrize("noise", [0.0, -1.0, math.nan, math.inf, True, "1"])
def test_noise_is_a_finite_number_above_zero(noise: float) -> None:
    with pytest.raises(PrivacyParameterError, match="noise_multiplier must be a finite number above 0"):
        GaussianSteps(noise_multiplier=noise)
    with pytest.raises(PrivacyParameterError, match="stddev must be a finite number above 0"):
        CountNoise(stddev=noise, contributions=1)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.0000001, math.nan])
def test_sampling_rate_is_a_chance(rate: float) -> None:
    with pytest.raises(PrivacyParameterError, match="sampling_rate"):
        GaussianSteps(noise_multiplier=1.0, sampling_rate=rate)


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_counts_are_whole_and_positive(count: int) -> None:
    with pytest.raises(PrivacyParameterError, match="steps must be a whole number of 1 or more"):
        GaussianSteps(noise_multiplier=1.0, steps=count)
    with pytest.raises(PrivacyParameterError, match="contributions must be a whole number of 1 or more"):
        CountNoise(stddev=1.0, contributions=count)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, "unknown kind"),
        ({"kind": "laplace"}, "laplace"),
        ({"kind": "count_noise", "stddev": 1.0}, "contributions"),
        ({"kind": "count_noise", "stddev": 1.0, "contributions": 1, "refund": 1}, "refund"),
        ({"kind": "count_noise", "stddev": 0.0, "contributions": 1}, "stddev"),
    ],
)
def test_malformed_json_is_refused(values: dict[str, object], named: str) -> None:
    with pytest.raises(PrivacyParameterError, match=named):
        event_from_json(values)


def test_count_noise_compares_with_a_gaussian() -> None:
    assert CountNoise(stddev=30.0, contributions=9).noise_multiplier == 10.0


def test_events_load_no_accountant() -> None:
    """A ledger that reads events starts fast."""
    check = "import sys, privacy.events; sys.exit(any(m in sys.modules for m in ('dp_accounting', 'scipy', 'torch')))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0

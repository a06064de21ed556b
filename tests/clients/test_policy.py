"""A holder's policy: read from its own file, checked at the door, and never widened by a plan."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from clients.policy import HolderPolicy, load_policy
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.errors import PlanError, PolicyRefusedError

GOOD: dict[str, Any] = {
    "holder": "north",
    "population": "subscribers",
    "period": "2026",
    "max_epsilon": 2.0,
    "delta": 1e-7,
    "population_size": 4_000_000,
    "contributions": 10,
    "least_noise_multiplier": 0.5,
    "clip_norm": 1.0,
}
COUNTS = CountReleasePlan(contributions=10, cells_stddev=1.0, margins_stddev=1.0).calibrate(epsilon=1.99, delta=1e-7)
STEPS = DPSGDPlan(
    clip_norm=1.0, noise_multiplier=3.0, sampling_rate=0.01, expected_batch=10.0, steps=100
)  # epsilon about 0.3


@pytest.fixture
def policy() -> HolderPolicy:
    return policy_with()


def policy_with(**change: Any) -> HolderPolicy:
    return HolderPolicy.model_validate(GOOD | change)


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "holder.toml"
    path.write_bytes(tomli_w.dumps(values).encode())
    return path


def test_policy_is_read_from_its_section(tmp_path: Path, policy: HolderPolicy) -> None:
    """Other sections of the file are not its business."""
    assert load_policy(written(tmp_path, {"privacy": GOOD, "data": {"folder": "x"}})) == policy


def test_terms_are_the_decimal_numbers_that_were_written(policy: HolderPolicy) -> None:
    """0.1 is one tenth, not the float nearest to it."""
    terms = policy.model_copy(update={"max_epsilon": 0.1}).terms()
    assert (terms.epsilon, terms.delta) == (Fraction(1, 10), Fraction(1, 10_000_000))
    assert (terms.holder, terms.population, terms.period) == ("north", "subscribers", "2026")


@pytest.mark.parametrize("plan", [COUNTS, STEPS], ids=["counts", "dp-sgd"])
def test_a_plan_within_the_policy_passes(policy: HolderPolicy, plan: CountReleasePlan | DPSGDPlan) -> None:
    policy.check(plan)


@pytest.mark.parametrize(
    ("plan", "change", "said"),
    [
        (COUNTS, {"contributions": 9}, r"contributions per person is 10, .* allows at most 9"),
        (COUNTS, {"least_noise_multiplier": 5.0}, r"noise_multiplier is [0-9.]+, .* allows at least 5"),
        (COUNTS, {"max_epsilon": 1.5}, r"epsilon at delta 1e-07 is 1\.9[0-9]+, .* allows at most 1\.5"),
        (COUNTS, {"delta": 1e-9}, r"epsilon at delta 1e-09 is 2\.[0-9]+, .* allows at most 2"),
        (STEPS, {"clip_norm": 0.5}, r"clip_norm is 1, .* allows at most 0\.5"),
        (STEPS, {"least_noise_multiplier": 3.1}, r"noise_multiplier is 3, .* allows at least 3\.1"),
        (STEPS, {"max_epsilon": 0.01}, r"epsilon at delta 1e-07 is 0\.[0-9]+, .* allows at most 0\.01"),
    ],
)
def test_a_plan_beyond_the_policy_is_refused(
    plan: CountReleasePlan | DPSGDPlan, change: dict[str, Any], said: str
) -> None:
    """The rule and both values are named, and the holder."""
    with pytest.raises(PolicyRefusedError, match=said) as refused:
        policy_with(**change).check(plan)
    assert "'north'" in str(refused.value)
    assert refused.value.exit_code == 3


def test_bounds_themselves_are_allowed() -> None:
    """At most means at most: a plan at every bound passes."""
    policy_with(least_noise_multiplier=3.0, max_epsilon=STEPS.epsilon(1e-7)).check(STEPS)


@pytest.mark.parametrize("cap", ["contributions", "clip_norm"])
def test_a_cap_binds_only_what_it_is_about(cap: str) -> None:
    """A count release has no clip norm, DP-SGD no cells."""
    plan = STEPS if cap == "contributions" else COUNTS
    policy_with(**{cap: 1 if cap == "contributions" else 1e-9}).check(plan)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_epsilon", 0),
        ("max_epsilon", -1.0),
        ("max_epsilon", float("nan")),
        ("max_epsilon", float("inf")),
        ("max_epsilon", 1000),
        ("delta", 0.0),
        ("delta", 1.0),
        ("delta", float("nan")),
        ("contributions", 0),
        ("contributions", 1.5),
        ("least_noise_multiplier", 0),
        ("least_noise_multiplier", float("nan")),
        ("clip_norm", 0),
        ("clip_norm", float("inf")),
        ("population_size", 0),
        ("population_size", 10_000_000),
        ("population_size", 20_000_000),
        ("holder", ""),
        ("holder", " north"),
        ("period", "2026\x07"),
    ],
)
def test_a_policy_that_breaks_a_rule_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(PlanError, match=r"holder\.toml"):
        load_policy(written(tmp_path, {"privacy": GOOD | {key: value}}))


def test_delta_of_the_wrong_size_names_both_values(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"delta is 1e-07, but must be below 1 / population_size = 5e-08"):
        load_policy(written(tmp_path, {"privacy": GOOD | {"population_size": 20_000_000}}))


@pytest.mark.parametrize("key", sorted(GOOD.keys() - {"population_size"}))
def test_a_policy_without_a_cap_is_refused(tmp_path: Path, key: str) -> None:
    """Every bound is there, or nothing is released."""
    values = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(PlanError, match=f"'{key}'.*add it"):
        load_policy(written(tmp_path, {"privacy": values}))


def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"unknown key 'max_epsilons'; did you mean 'max_epsilon'\?"):
        load_policy(written(tmp_path, {"privacy": GOOD | {"max_epsilons": 3}}))


def test_a_file_without_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"no section \[privacy\]; without a cap"):
        load_policy(written(tmp_path, {"data": {}}))
    with pytest.raises(PlanError, match=r"no section \[privacy\]"):
        load_policy(written(tmp_path, {"privacy": 3}))
    (tmp_path / "holder.toml").write_text("[privacy")
    with pytest.raises(PlanError, match="is not valid TOML"):
        load_policy(tmp_path / "holder.toml")
    with pytest.raises(PlanError, match="cannot read policy"):
        load_policy(tmp_path / "none.toml")

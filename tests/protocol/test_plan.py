"""A plan is checked key by key before anything else happens, and says what is wrong and what to do."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import PlanError
from protocol.plan import load_plan, parse_plan
from tests.plans import tiny_plan, tiny_values

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(tomli_w.dumps(tiny_values()), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("training.round", "rounds"),
        ("federation.strategi", "strategy"),
        ("data.input_step", "input_steps"),
        ("model.chanels", "channels"),
        ("run.seeds", "seed"),
        ("reports", "report"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(PlanError, match=f"unknown key '[a-z._]*'; did you mean '{nearest}'") as caught:
        parse_plan(tiny_values({key: 1}))
    assert caught.value.exit_code == 2


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(PlanError, match=r"unknown task 'dhgsill'; did you mean 'dhgsil'\?"):
        tiny_plan({"run.task": "dhgsill"})


BAD_VALUES: list[tuple[str, Any, str]] = [
    ("training.rounds", "many", "valid integer"),
    ("training.rounds", 0, "greater than or equal to 1"),
    ("training.rounds", 2.5, "valid integer"),
    ("training.learning_rate", float("nan"), "finite number"),
    ("training.learning_rate", float("inf"), "finite number"),
    ("training.learning_rate", -0.1, "greater than 0"),
    ("training.optimizer", "lbfgs", "'adam' or 'sgd'"),
    ("data.scale", float("inf"), "finite number"),
    ("data.scale", float("nan"), "finite number"),
    ("data.index", "share", "total_share"),
    ("data.source", "web", "synthetic"),
    ("model.dropout", 1.0, "less than 1"),
    ("model.contrastive_weight", float("inf"), "finite number"),
    ("federation.strategy", "fedsgd", "fedavg"),
    ("federation.shares", ["everything"], "weights\\+margins"),
    ("federation.shares", [], "at least 1"),
    ("federation.shares", ["weights", "weights"], "twice"),
    ("federation.holders", {}, "at least 1"),
    ("federation.holders", {"north": []}, "holder 'north' has no regions"),
    ("federation.holders", {"north": ["C001", "C001"]}, "lists a region twice"),
    ("federation.holders", {"north": "C001"}, "valid tuple"),
    ("federation.holders", {"": ["C001"]}, "name"),
    ("federation.holders", {"north\n": ["C001"]}, "name"),
    ("report.break_date", "2020-02-30", "not a date"),
    ("run.name", "../elsewhere", "pattern"),
    ("run.seed", -1, "greater than or equal to 0"),
]


@pytest.mark.parametrize(("key", "value", "rule"), BAD_VALUES)
def test_bad_value_names_key_and_rule(key: str, value: Any, rule: str) -> None:
    with pytest.raises(PlanError, match=rule) as caught:
        tiny_plan({key: value})
    assert key.rpartition(".")[2] in str(caught.value)
    assert "; " in str(caught.value), "the way out is missing"
    assert caught.value.exit_code == 2


def test_missing_section_is_named() -> None:
    values = tiny_values()
    del values["federation"]
    with pytest.raises(PlanError, match=r"'federation': .*; add it"):
        parse_plan(values)


def test_choosing_a_round_needs_unseen_data() -> None:
    with pytest.raises(PlanError, match='set select = "last"'):
        tiny_plan({"training.fit_on": "train+validation"})
    assert tiny_plan({"training.fit_on": "train+validation", "training.select": "last"})


def test_world_belongs_to_synthetic_data() -> None:
    with pytest.raises(PlanError, match=r"\[data.world\] describes a synthetic world"):
        tiny_plan({"data.source": "parquet"})


def test_overrides_are_read_as_toml_or_text(file: Path) -> None:
    given = {"training.rounds": "7", "federation.strategy": "fedprox", "report.metric": '"mae"', "run.seed": "1"}
    plan = load_plan(file, overrides=given, seed=9)
    assert (plan.training.rounds, plan.federation.strategy, plan.report.metric) == (7, "fedprox", "mae")
    assert plan.run.seed == 9, "--seed wins over --set"


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        ("training.roundz", "did you mean 'rounds'"),
        ("trainin.rounds", "did you mean 'training'"),
        ("rounds", "section.key=value"),
        ("run.name.first", "section.key=value"),
        (".rounds", "section.key=value"),
        ("federation.holders.nord", "'nord'"),
    ],
)
def test_override_of_a_key_that_does_not_exist_is_refused(file: Path, key: str, rule: str) -> None:
    with pytest.raises(PlanError, match=rule):
        load_plan(file, overrides={key: "[]" if "holders" in key else "1"})


@pytest.mark.parametrize(
    ("content", "rule"), [(b"[run\n", "not valid TOML"), (b"\xff\xfe", "not valid TOML"), (b"", "'run'")]
)
def test_file_that_is_no_plan_is_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(PlanError, match=rule):
        load_plan(tmp_path / "bad.toml")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read plan .*; give the path of a TOML file"):
        load_plan(tmp_path / "none.toml")


def test_task_fills_in_its_sections() -> None:
    """The locked plan says every value that was used, defaults included."""
    plan = tiny_plan()
    assert plan.data["space"] == "log1p"
    assert plan.model["temporal"] == "additive"


def test_digest_depends_on_every_value_and_on_nothing_else(file: Path) -> None:
    plan = tiny_plan()
    assert load_plan(file).digest() == plan.digest() == parse_plan(plan.model_dump(mode="json")).digest()
    changed = [tiny_plan({key: value}).digest() for key, value in {"run.seed": 4, "model.dropout": 0.2}.items()]
    assert len({plan.digest(), *changed}) == 3


@given(
    rate=st.floats(1e-12, 1e6),
    seed=st.integers(0, 2**31 - 1),
    name=st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=8),
    patience=st.integers(0, 10**6),
)
def test_digest_survives_the_locked_file(rate: float, seed: int, name: str, patience: int) -> None:
    """What is written into a run folder is read back as the same plan, to the last digit of a number."""
    plan = tiny_plan(
        {
            "run.seed": seed,
            "training.learning_rate": rate,
            "training.patience": patience,
            "federation.holders": {name: ["C001", 'C"2\\']},
            "federation.aggregation": "plain",
        }
    )
    from server.run_folder import _without_none

    text = tomli_w.dumps(_without_none(plan.model_dump(mode="json")))
    assert parse_plan(tomllib.loads(text)).digest() == plan.digest()


@pytest.mark.parametrize(
    "path", sorted([*ROOT.glob("plans/*.toml"), *ROOT.glob("simulations/plans/*.toml")]), ids=lambda p: p.name
)
def test_shipped_plans_are_valid(path: Path) -> None:
    assert load_plan(path).digest()

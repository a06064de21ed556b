"""What a desk refuses, and that nothing is lost by it: foreign plans and rows, changed settings, broken ledgers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from clients.desk.counts import own_series
from clients.desk.desk import Desk
from clients.joining import identity_of
from clients.settings import load_place
from dhgsil.formats.parquet import write_parquet
from dhgsil.public_grid import REGIONS_FILE, SERIES_FILE
from dhgsil.readers import COUNTS_FILE
from dhgsil.task import TASK
from protocol.errors import (
    ConformanceError,
    DataError,
    InputError,
    LedgerError,
    MigrafedError,
    NotApprovedError,
    PlanError,
    PolicyRefusedError,
    ProtocolError,
)
from protocol.messages import READY, StatisticsRequest
from protocol.plan import Plan, parse_plan
from protocol.public_inputs import public_inputs
from protocol.records import Header
from protocol.stages import stages_of
from simulations.holder_folders import HolderFolders, make_folders
from simulations.identities import roster_of
from tests.desks import POLICY, Approving, Deployment, write_place
from tests.plans import series_of, tiny_plan, tiny_values

COUNTS: dict[str, Any] = {"privacy.epsilon": 2.0, "privacy.delta": 1e-6, "privacy.contributions": 5}
RUN = "tiny-s3-00000000"


def changed(plan: Plan, **sections: dict[str, Any]) -> Plan:
    values = plan.model_dump(mode="json")
    for name, given in sections.items():
        values[name] = (values[name] or {}) | given
    return parse_plan(values)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> HolderFolders:
    plan = parse_plan(tiny_values({"federation.vectorise": "never", "federation.aggregation": "plain"}))
    return make_folders(plan, tmp_path_factory.mktemp("made") / "data")


@pytest.fixture
def data(folders: HolderFolders, tmp_path: Path) -> Path:
    """A copy of what north has."""
    return Path(shutil.copytree(folders.holders["north"], tmp_path / "rows"))


def desk_of(plan: Plan, folder: Path, data: Path, name: str = "north", **policy: Any) -> Desk:
    deployment = {holder: write_place(folder / f"of {holder}", holder, data) for holder in ("north", "east", "west")}
    place = write_place(folder / name, name, data, **policy)
    keys = {holder: identity_of(each) for holder, each in deployment.items()} | {name: identity_of(place)}
    return Desk(place, Approving(plan, roster_of(keys)), conformance=list)


def asked(desk: Desk, plan: Plan, run: str = RUN) -> Any:
    last = stages_of(plan)[-1]
    return desk.agent(run, last.plan.digest(), last.name)


def rewrite(folder: Path, **policy: Any) -> None:
    """Edit the policy in the file, as the operator would while the agent runs."""
    place = load_place(folder / "holder.toml")
    values = {
        "holder": {"name": place.name, "folder": "."}, "data": {"folder": str(place.data)},
        "privacy": {"holder": place.name, **POLICY, **policy},
    }  # fmt: skip
    (folder / "holder.toml").write_text(tomli_w.dumps(values), encoding="utf-8")


def test_public_inputs_are_those_of_all_records(folders: HolderFolders) -> None:
    """What the coordinator reads from the public folder is what the task tells of everybody's rows."""
    series = series_of(parse_plan(tiny_values()))
    found, expected = public_inputs(folders.plan, folders.public), TASK.public(series)
    assert np.array_equal(found.times, expected.times)
    assert found.regions.equals(expected.regions)
    assert (found.step, found.country) == (expected.step, expected.country)


def test_one_agent_answers_a_whole_run_and_rows_are_read_once(
    folders: HolderFolders, data: Path, tmp_path: Path
) -> None:
    desk = desk_of(folders.plan, tmp_path, data)
    first = asked(desk, folders.plan)
    (data / COUNTS_FILE).unlink()
    assert asked(desk, folders.plan) is first
    assert asked(desk, folders.plan, run="another-run") is not first
    assert desk.status()["plans"] == [folders.plan.digest()]


@pytest.mark.parametrize("missing", [COUNTS_FILE, REGIONS_FILE, SERIES_FILE])
def test_a_holder_without_the_tasks_data(missing: str, folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    (data / missing).unlink()
    desk = desk_of(folders.plan, tmp_path, data)
    with pytest.raises(DataError, match=r"rows|missing|readable|Parquet"):
        asked(desk, folders.plan)
    shutil.copy(folders.holders["north"] / missing, data)
    asked(desk, folders.plan)  # put right, the same desk goes on


def test_data_of_another_task(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    days = {key: folders.plan.data[key] for key in ("start", "end")}
    queries = changed(folders.plan, data={"source": "job_queries", "queries": {"step": "week"}, **days})
    with pytest.raises(DataError, match=r"cities|city"):
        asked(desk_of(queries, tmp_path / "a", data), queries)
    values = {
        "run": {"name": "calls", "task": "integration"}, "data": {"source": "calls", "pushes": "none"},
        "federation": {
            "shares": ["weights"], "aggregation": "plain", "holders": {name: [name] for name in ("north", "east")}
        },
    }  # fmt: skip
    calls = parse_plan(values)
    with pytest.raises(DataError, match=r"holder\.toml"):
        asked(desk_of(calls, tmp_path / "b", data), calls)


def test_a_source_that_no_holder_has_rows_of(data: Path, tmp_path: Path) -> None:
    plan = tiny_plan({"federation.aggregation": "plain"})
    with pytest.raises(PlanError, match="migrafed data make"):
        asked(desk_of(plan, tmp_path, data), plan)
    with pytest.raises(PlanError, match="migrafed data make"):
        public_inputs(plan, data)


def test_rows_of_another_region_are_refused_and_not_named(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    series = series_of(parse_plan(tiny_values()))
    write_parquet(series.held_by(["C001", "C002", "C003", "C004"]), data / COUNTS_FILE)
    with pytest.raises(DataError, match=r"counts from 1 region\(s\)") as refusal:
        asked(desk_of(folders.plan, tmp_path, data), folders.plan)
    assert "C004" not in str(refusal.value)
    write_parquet(series.held_by(["C006"]), data / COUNTS_FILE)
    with pytest.raises(DataError, match="does not give to 'north'"):
        own_series(folders.plan, data, "north")


def test_public_lists_in_another_order(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    """Row 1 of one party would be added to row 2 of another, and nobody would notice."""
    head, one, two, *rest = (data / REGIONS_FILE).read_text(encoding="utf-8").splitlines(keepends=True)
    (data / REGIONS_FILE).write_text("".join([head, two, one, *rest]), encoding="utf-8")
    with pytest.raises(DataError, match="their order matters"):
        asked(desk_of(folders.plan, tmp_path, data), folders.plan)
    with pytest.raises(DataError, match="digest"):
        public_inputs(folders.plan, data)
    asked(desk_of(unnamed := changed(folders.plan, data={"public": None}), tmp_path / "unnamed", data), unnamed)


@pytest.mark.parametrize(
    ("dates", "error", "rule"),
    [
        ({"start": None}, PlanError, "must be public"),
        ({"end": "2018-02-20"}, PlanError, "cut short"),
        ({"start": "2017-01-03", "end": "2018-02-19"}, DataError, "begin on"),
        ({"end": "2030-01-06"}, DataError, "choose dates inside"),
        ({"start": "yesterday"}, PlanError, "YYYY-MM-DD"),
    ],
)
def test_dates_that_do_not_fit_the_rows(
    dates: dict[str, Any], error: type[MigrafedError], rule: str, folders: HolderFolders, data: Path, tmp_path: Path
) -> None:
    plan = changed(folders.plan, data=dates)
    with pytest.raises(error, match=rule):
        asked(desk_of(plan, tmp_path, data), plan)


def test_a_plan_for_other_holders(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    desk = desk_of(folders.plan, tmp_path, data, name="south")
    with pytest.raises(NotApprovedError, match="not for 'south'"):
        asked(desk, folders.plan)


def test_a_plan_that_is_not_approved_or_no_longer(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    desk = desk_of(folders.plan, tmp_path, data)
    asked(desk, folders.plan)
    with pytest.raises(NotApprovedError):
        asked(desk, changed(folders.plan, run={"seed": 4}))
    approving: Any = desk._approvals
    approving.revoked = True
    with pytest.raises(NotApprovedError):
        asked(desk, folders.plan)


@pytest.mark.parametrize("run", ["", "../north", ".hidden", "a/b", "x" * 129, "a\nb", "a b"])
def test_a_run_whose_name_is_a_path(run: str, folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    desk = desk_of(folders.plan, tmp_path, data)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ProtocolError, match="no name of a run"):
        asked(desk, folders.plan, run=run)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stage_that_the_plan_has_not(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    desk = desk_of(folders.plan, tmp_path, data)
    with pytest.raises(ProtocolError, match="no stage 'pooled'"):
        desk.agent(RUN, folders.plan.digest(), "pooled")


def test_stages_are_carried_out_under_their_own_variant(data: Path, folders: HolderFolders, tmp_path: Path) -> None:
    """A calibration under the run's own plan would fit another span than was approved."""
    plan = changed(folders.plan, training={"fit_on": "train+validation", "select": "last"})
    calibration, main = stages_of(plan)
    desk = desk_of(plan, tmp_path, data)
    assert desk.agent(RUN, calibration.plan.digest(), calibration.name).plan == calibration.plan
    assert desk.agent(RUN, main.plan.digest(), main.name).plan == plan
    with pytest.raises(NotApprovedError, match="another plan"):
        desk.agent(RUN, plan.digest(), calibration.name)


def test_the_name_of_a_run_belongs_to_one_plan(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    desk = desk_of(folders.plan, tmp_path, data)
    asked(desk, folders.plan)
    other = changed(folders.plan, run={"seed": 4})
    approving: Any = desk._approvals
    approving.plan_ = other
    with pytest.raises(ProtocolError, match="a name of its own"):
        asked(desk, other)
    asked(desk, other, run="another-run")


def test_a_policy_that_is_edited_holds_from_the_next_message(
    folders: HolderFolders, data: Path, tmp_path: Path
) -> None:
    desk = desk_of(folders.plan, tmp_path, data)
    first = asked(desk, folders.plan)
    rewrite(tmp_path / "north", aggregation={"allow": ["secure"]})
    with pytest.raises(PolicyRefusedError, match="plain"):
        asked(desk, folders.plan)
    (tmp_path / "north" / "holder.toml").write_text("[holder", encoding="utf-8")
    with pytest.raises(PlanError, match="not valid TOML"):
        asked(desk, folders.plan)
    with pytest.raises(PlanError):
        load_place(tmp_path / "north" / "holder.toml")
    write_place(tmp_path / "north", "north", data)
    again = asked(desk, folders.plan)
    assert again is not first or again.plan == first.plan


def test_a_policy_of_another_holder(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    desk = desk_of(folders.plan, tmp_path, data)
    rewrite(tmp_path / "north", holder="east")
    with pytest.raises(PlanError, match="the same name"):
        asked(desk, folders.plan)


@pytest.mark.slow
def test_another_budget_is_not_slipped_under_a_ledger(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    """A release is charged once; with another cap in the policy the ledger stops, with the old one it goes on."""
    plan = parse_plan(tiny_values() | {"data": folders.plan.data, "privacy": section(COUNTS)})
    desk = desk_of(plan, tmp_path, data, max_epsilon=2.0)
    asked(desk, plan)
    told = desk.status()["ledgers"]["people"]
    rewrite(tmp_path / "north", max_epsilon=3.0)
    with pytest.raises(LedgerError, match="a budget is not changed on the way"):
        asked(desk, plan)
    rewrite(tmp_path / "north", max_epsilon=2.0)
    (data / COUNTS_FILE).write_bytes(b"rows are not read again")
    asked(desk, plan)
    assert desk.status()["ledgers"]["people"] == told


@pytest.mark.slow
def test_a_policy_that_allows_less_than_was_approved(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    plan = parse_plan(tiny_values() | {"data": folders.plan.data, "privacy": section(COUNTS)})
    less: tuple[dict[str, Any], ...] = ({"contributions": 4}, {"least_noise_multiplier": 50.0}, {"max_epsilon": 1.0})
    for changes in less:
        desk = desk_of(plan, tmp_path / next(iter(changes)), data, **changes)
        with pytest.raises(PolicyRefusedError, match="the policy of 'north' allows"):
            asked(desk, plan)
        assert desk.status()["ledgers"]["people"]["spent"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["ledger", "release", "key", "secure sums"])
def test_a_damaged_ledger_releases_nothing(damage: str, folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    plan = parse_plan(tiny_values() | {"data": folders.plan.data, "privacy": section(COUNTS)})
    desk = desk_of(plan, tmp_path, data)
    asked(desk, plan)
    desk.close()
    people = tmp_path / "north" / "ledgers" / "people"
    found = {
        "ledger": people / "ledger" / "ledger.jsonl", "release": next((people / "ledger" / "served").iterdir()),
        "key": people / "ledger.key.pem", "secure sums": tmp_path / "north" / "runs" / RUN / "opened-sums.jsonl",
    }[damage]  # fmt: skip
    content = found.read_bytes() if found.exists() else b""
    found.write_bytes(content[: len(content) // 2] + b"?\n" + content[len(content) // 2 :])
    with pytest.raises(LedgerError):
        asked(desk, plan)
    found.write_bytes(content)
    asked(desk, plan)


def section(changes: dict[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("privacy."): value for key, value in changes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", ["plain", "secure"])
def test_an_agent_that_is_started_anew_goes_on(aggregation: str, folders: HolderFolders, tmp_path: Path) -> None:
    """All agents and the coordinator end after round 1; taken up, the run ends with the same weights."""
    plan = changed(folders.plan, federation={"aggregation": aggregation}, model={"pair": "embedding"})
    made, (spec,) = HolderFolders(folders.folder, plan), stages_of(plan)
    undisturbed = Deployment(made, tmp_path / "whole").model()
    broken = Deployment(made, tmp_path / "broken")

    def stop(_: Any, record: Any) -> None:
        if record.round == 1:
            raise KeyboardInterrupt

    with broken.journal() as journal, pytest.raises(KeyboardInterrupt):
        broken.stage(spec, journal, on_round=stop)
    for name in made.holders:
        broken.restart(name)
    with broken.journal() as journal:
        found = broken.stage(spec, journal)
    assert all(np.array_equal(found[name], values) for name, values in undisturbed.items())


def test_no_private_run_with_a_mechanism_that_fails_its_check(
    folders: HolderFolders, data: Path, tmp_path: Path
) -> None:
    """Asked before anything is opened, and only of plans that promise something; one answer serves the process."""
    asked_for: list[bool] = []

    def check() -> None:
        asked_for.append(True)
        if len(asked_for) == 1:
            raise ConformanceError("noise is too quiet; do not release anything with this installation")

    plan = parse_plan(tiny_values() | {"data": folders.plan.data, "privacy": section(COUNTS)})
    desk = desk_of(plan, tmp_path, data)
    desk._conformance = check
    with pytest.raises(ConformanceError):
        asked(desk, plan)
    assert not (tmp_path / "north" / "ledgers").exists()
    asked(desk, plan)
    asked(desk, plan, run="another-run")
    assert len(asked_for) == 2
    plain = desk_of(folders.plan, tmp_path / "plain", data)
    plain._conformance = lambda: pytest.fail("a plan that promises nothing needs no noise")
    asked(plain, folders.plan)


def test_every_refusal_is_one_of_ours(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    """An unreadable folder of runs, an agent without keys: named, not a traceback."""
    desk = desk_of(folders.plan, tmp_path, data)
    (tmp_path / "north" / "runs").write_text("a file in the way", encoding="utf-8")
    with pytest.raises(MigrafedError, match="cannot be used"):
        asked(desk, folders.plan)
    (tmp_path / "north" / "runs").unlink()
    shutil.rmtree(tmp_path / "north" / "keys")
    with pytest.raises(InputError, match=r"identity\.key\.pem"):
        asked(desk, folders.plan)


def test_messages_of_another_run_find_no_open_stage(folders: HolderFolders, data: Path, tmp_path: Path) -> None:
    desk = desk_of(folders.plan, tmp_path, data)
    stage = stages_of(folders.plan)[0].name
    header = Header(run=RUN, plan_hash="0" * 64, stage=stage)
    with pytest.raises(ProtocolError, match="belongs to plan"):
        asked(desk, folders.plan).statistics(StatisticsRequest(header=header, phase=READY, totals={}))

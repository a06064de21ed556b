"""`migrafed holder check`: what a holder reads about its rows, on good and on bad input; and that nothing changes."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w

from clients.custody import Custody
from clients.holder_config import load_holder
from clients.release_store import ReleaseStore
from migrafed.__main__ import main
from protocol.plan import read_toml
from simulations.worlds.job_queries import JobQueryWorld, make_query_world, write_queries
from tests.holder_files import make_holder, settings_values, some_queries, tree
from tests.ledgers import gaussian_cost

Check = Callable[..., tuple[int, dict[str, Any]]]
STEPS = ["read", "clean", "job filter", "origin", "destination"]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Exit code and the one JSON object of a check."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = main(["holder", "check", *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def found(answer: dict[str, Any], check: str, column: str = "") -> dict[str, str]:
    """The finding of one check."""
    return next(one for one in answer["checks"] if (one["check"], one["column"]) == (check, column))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic holder with raw texts and addresses, and its holder.toml."""
    folder = tmp_path_factory.mktemp("world")
    config = JobQueryWorld(num_cities=8, step="week", num_steps=4, queries=4_000)
    made = make_query_world(config, seed=3)
    held = made.cities.codes[:5]
    write_queries(made, folder, holders={"north": held, "south": made.cities.codes[5:]})
    place = folder / "north"
    values = settings_values(
        job_queries=read_toml(place / "queries.toml", what="source") | {"origin": None, "destination": None},
        release={
            "cities": "../cities.csv", "held": list(held), "start": made.calendar.start, "end": made.calendar.end,
            "step": "week", "zone": made.calendar.zone,
        },
        privacy={"period": "all"},
    )  # fmt: skip
    (place / "holder.toml").write_text(tomli_w.dumps(values))
    return place / "holder.toml"


@pytest.mark.slow
def test_a_check_of_texts_and_addresses_says_shares_and_no_values(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every user key, text and address of the rows is looked for in all that is printed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = tree(world.parent.parent)
    assert main(["holder", "check", str(world)]) == 0
    shown = capsys.readouterr()
    printed = shown.out + shown.err
    assert main(["holder", "check", str(world), "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert tree(world.parent.parent) == before
    assert not list(tmp_path.iterdir())
    rows = pa.concat_tables(pq.read_table(file) for file in sorted((world.parent / "queries").glob("*.parquet")))
    for column in ("user", "ip", "text"):
        values = {value for value in rows[column].to_pylist() if value and len(value) > 6} - {"unknown"}
        assert len(values) > 20
        assert not [value for value in values if value in printed + captured.out + captured.err], column
    assert [step["name"] for step in answer["balance"]["steps"]] == STEPS
    assert answer["balance"]["rows_in"] == answer["rows"]
    assert 0 < answer["balance"]["rows_out"] < answer["rows"]
    assert "known " in found(answer, "addresses", "ip")["found"]
    assert "no job term" in found(answer, "texts", "text")["found"]
    assert "named" in found(answer, "destinations", "text")["found"]
    assert "stays with the holder" in shown.out.rstrip().splitlines()[-1]


def test_a_sample_may_be_small(tmp_path: Path, check: Check) -> None:
    code, answer = check(make_holder(tmp_path, some_queries(8)), "--rows", 50)
    assert (code, answer["ok"], answer["rows"]) == (0, True, 50)
    assert check(make_holder(tmp_path, None), "--rows", 0)[0] == 2


def test_shares_of_rows_that_would_be_dropped(tmp_path: Path, check: Check) -> None:
    queries = some_queries(8)
    changed = [(day, who, "C9" if n % 4 == 0 else origin, to) for n, (day, who, origin, to) in enumerate(queries)]
    code, answer = check(make_holder(tmp_path, changed))
    dropped = {step["name"]: step["dropped"] for step in answer["balance"]["steps"]}
    assert (code, dropped["origin"]["unknown city code"]) == (0, len(queries) // 4)
    assert "unknown codes 25.0%" in found(answer, "origin", "origin")["found"]
    assert "75.0% of the rows would be counted" in found(answer, "ingest")["found"]


def test_policy_and_ledger_are_part_of_it_and_stay_untouched(tmp_path: Path, check: Check) -> None:
    path = make_holder(tmp_path, some_queries(8))
    settings = load_holder(path)
    folder = ReleaseStore(settings.store).custody_folder("2026")
    folder.mkdir(parents=True)
    with Custody.at(folder, settings.config.privacy) as custody:
        custody.ledger.reserve("something else", gaussian_cost("1", "4"), request="plan", rounds=1)
    before = tree(tmp_path)
    code, answer = check(path)
    assert (code, found(answer, "ledger")["status"]) == (2, "failed")
    assert "is spent" in found(answer, "ledger")["found"]
    assert tree(tmp_path) == before
    code, answer = check(make_holder(tmp_path, None, privacy={"contributions": 2}))
    assert (code, "contributions per person is 3" in found(answer, "policy")["found"]) == (2, True)


def _rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def _naive(table: pa.Table) -> pa.Table:
    return table.set_column(0, "time", table["time"].cast(pa.timestamp("ms")))


@pytest.mark.parametrize(
    ("change", "check_name", "column", "said"),
    [
        (lambda t: t.drop_columns(["user"]), "column for the user", "user", "missing"),
        (_naive, "times", "time", "without zone 100.0%"),
        (lambda t: t.set_column(1, "user", pa.nulls(len(t), pa.string())), "persons", "user", "nobody"),
        (lambda t: t.slice(0, 0), "files", "", "rows"),
        (
            lambda t: t.set_column(2, "origin", pa.array(["C4"] * len(t))), "origin", "origin",
            "unknown codes 0.0%, held 0.0%",
        ),
    ],
)  # fmt: skip
def test_input_that_breaks_the_contract_has_exit_code_2_after_the_table(
    tmp_path: Path, check: Check, change: Callable[[pa.Table], pa.Table], check_name: str, column: str, said: str
) -> None:
    path = make_holder(tmp_path, some_queries(3))
    _rewrite(tmp_path / "raw" / "queries.parquet", change)
    code, answer = check(path)
    one = found(answer, check_name, column)
    assert (code, answer["ok"], one["status"]) == (2, False, "failed")
    assert said in one["found"]
    assert one["way_out"]


def test_a_file_twice_a_damaged_file_and_no_file(tmp_path: Path, check: Check) -> None:
    path = make_holder(tmp_path, some_queries(3), job_queries={"queries": "raw/*.parquet"})
    file = tmp_path / "raw" / "queries.parquet"
    shutil.copy(file, file.with_name("again.parquet"))
    code, answer = check(path)
    assert (code, found(answer, "files")["status"]) == (2, "failed")
    file.with_name("again.parquet").unlink()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert found(check(path)[1], "files")["status"] == "failed"
    file.unlink()
    assert found(check(path)[1], "files")["status"] == "failed"


def test_mixed_zones_are_noted_with_the_way_out(tmp_path: Path, check: Check) -> None:
    path = make_holder(tmp_path, None, job_queries={"queries": "raw.csv.gz"})
    rows = ["2026-01-01T10:00:00+08:00,u,C1,C2", "2026-01-01 10:00:00,u,C1,C2", "never,u,C1,C2", ",u,C1,C2"]
    with gzip.open(tmp_path / "raw.csv.gz", "wt") as table:
        table.write("\n".join(["time,user,origin,destination", *rows]) + "\n")
    code, answer = check(path)
    one = found(answer, "times", "time")
    assert (code, one["status"]) == (0, "note")
    assert "readable 25.0%, missing 25.0%, without zone 25.0%, unreadable 25.0%" in one["found"]
    assert "naive_times" in one["way_out"]


def test_public_inputs_that_do_not_fit_are_named(tmp_path: Path, check: Check) -> None:
    path = make_holder(tmp_path, some_queries(3), release={"held": ["C1", "C7"]})
    code, answer = check(path)
    assert (code, "'C7'" in found(answer, "public inputs")["found"]) == (2, True)
    (tmp_path / "cities.csv").unlink()
    assert found(check(path)[1], "public inputs")["status"] == "failed"


@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
def test_a_table_of_an_engine_is_checked_there(tmp_path: Path, check: Check) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = make_holder(tmp_path, some_queries(3), job_queries={"queries": "table:asked"})
    with duckdb.connect(tmp_path / "engine.duckdb") as connection:
        connection.execute(f"create table asked as from '{tmp_path / 'raw' / 'queries.parquet'}'")
    code, answer = check(path, "--backend", f"duckdb://{tmp_path}/engine.duckdb")
    assert (code, answer["rows"]) == (0, 72)
    code, answer = check(path)
    assert (code, found(answer, "files")["status"]) == (2, "failed")


def test_a_bad_file_is_named_at_once(tmp_path: Path, check: Check) -> None:
    code, answer = check(tmp_path / "none.toml")
    assert (code, "cannot read holder's settings" in answer["error"]["message"]) == (2, True)
    code, answer = check(make_holder(tmp_path, None, release={"windowdays": 3}))
    assert (code, "did you mean 'window_days'" in answer["error"]["message"]) == (2, True)


def test_the_clock_of_the_machine_plays_no_part(tmp_path: Path, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """Days are those of the zone of the grid, not of the machine."""
    late = [(dt.date(2026, 1, 10), "u", "C1", "C2")]
    monkeypatch.setitem(os.environ, "TZ", "America/Los_Angeles")
    answer = check(make_holder(tmp_path, late))[1]
    assert "inside the grid 100.0%" in found(answer, "times", "time")["found"]

"""Tables of bounds and attraction: their figures are those of a plain count, and a wrong choice or fit shows."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from dhgsil.regions import Regions
from privacy.release import NoisyCounts
from simulations.experiments import queries, query_bounding
from simulations.experiments import query_attraction as attraction
from simulations.experiments import query_bias as bias
from simulations.experiments.query_bounding import (
    APART,
    BEFORE,
    CLASSES,
    SORTS,
    Bounding,
    bounded,
    rule_of,
    tables_by_rank,
)
from simulations.experiments.query_staging import POOLED, RULES, Setting, StagedWorld, staged_world
from simulations.worlds.od_counts import Shock

SMALL = Setting(queries=40_000, cities=12, days=70, step="week", seed=5)
KS = (1, 3, 10)

Row = tuple[int, int, int, int]  # person, step, origin, destination


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> StagedWorld:
    return staged_world(SMALL, tmp_path_factory.mktemp("queries"))


@pytest.fixture(scope="module")
def counts(staged: StagedWorld) -> Bounding:
    return bounded(staged, POOLED, KS)


def low_bits_first(row: tuple[int, ...]) -> tuple[int, int]:
    return row[4] % 2**31, row[4] // 2**31


@pytest.fixture(scope="module")
def kept(staged: StagedWorld) -> dict[str, list[Row]]:
    """Contributions that each rule keeps, by loops over the staged rows; one city is one origin and one destination.

    The last choice alone reads the 63 bits of the priority with the low 31 in front.
    """
    rows = ds.dataset(staged.folder / f"{POOLED}.staged", partitioning="hive").to_table().to_pylist()
    days = defaultdict(list)
    for row in rows:
        days[row["person"], row["day"]].append(row)
    first: dict[tuple[int, int, int], tuple[int, int]] = {}
    for of_day in days.values():
        for row in of_day if len(of_day) <= RULES.bot_queries_per_day else []:
            key = (row["person"], row["step"], row["destination"])
            first[key] = min(first.get(key, (2**63, 0)), (row["priority"], row["origin"]))
    before = [(person, step, origin, d, p) for (person, step, d), (p, origin) in first.items()]
    best: dict[tuple[int, int, int], int] = {}
    for person, step, origin, d, p in before:
        if origin != d:
            best[person, step, origin] = min(best.get((person, step, origin), p), p)
    apart = [row for row in before if row[2] == row[3] or row[4] == best[row[0], row[1], row[2]]]
    own = defaultdict(list)
    for row in apart:
        own[row[0]].append(row)
    found = {BEFORE: before, APART: apart}
    for k in KS:
        found[rule_of(k)] = [row for mine in own.values() for row in sorted(mine, key=low_bits_first)[:k]]
    return {rule: [row[:4] for row in rows] for rule, rows in found.items()}


def test_cells_and_shares_are_those_of_a_plain_count(
    staged: StagedWorld, counts: Bounding, kept: dict[str, list[Row]]
) -> None:
    """Every cell of every rule, the shares dropped, the home share and the persons."""
    for rule, rows in kept.items():
        cells = np.zeros_like(counts.cells[rule])
        for _, step, origin, destination in rows:
            cells[step, origin, destination] += 1
        np.testing.assert_array_equal(cells, counts.cells[rule])
        found = bias.bias_of(counts, rule, staged.world.truth)
        home = sum(row[2] == row[3] for row in rows)
        assert found["dropped"] == pytest.approx(1 - len(rows) / len(kept[BEFORE]))
        assert found["home share"] == pytest.approx(home / len(rows))
    total = defaultdict(int)
    for person, *_ in kept[BEFORE]:
        total[person] += 1
    persons = bias.persons_of(counts)
    own = sorted(total.values())
    assert persons["persons"] == len(own)
    assert persons["largest"] == own[-1]
    assert persons["mean"] == pytest.approx(np.mean(own))
    assert [persons["median"], persons["90th"], persons["99th"]] == [
        own[int(np.ceil(q * len(own))) - 1] for q in (0.5, 0.9, 0.99)
    ]
    top = own[-round(len(own) / 100) :]
    assert persons["share of the top 1 %"] == pytest.approx(sum(top) / sum(own))


def test_losses_by_class_decile_and_hub_are_those_of_a_plain_count(
    staged: StagedWorld, counts: Bounding, kept: dict[str, list[Row]]
) -> None:
    """Cross-city contributions by class of persons, by tenth of the pairs, and into hubs."""
    total = defaultdict(int)
    for person, *_ in kept[BEFORE]:
        total[person] += 1
    rule = rule_of(3)
    share = np.zeros(len(CLASSES))
    pairs: dict[str, dict[tuple[int, int], int]] = {name: defaultdict(int) for name in (BEFORE, rule)}
    for name, of_pair in pairs.items():
        for person, _, origin, destination in kept[name]:
            if origin != destination:
                of_pair[origin, destination] += 1
                share[sum(total[person] >= low for low in CLASSES) - 1] += name == rule
    found = bias.classes_of(counts, rule)
    names = bias.class_names()
    assert names[0] == "1-5"
    np.testing.assert_allclose([found[f"{name} after"] for name in names], share / share.sum())
    every = [(o, d) for o in range(12) for d in range(12) if o != d]
    ranked = sorted(every, key=lambda pair: pairs[BEFORE][pair])
    found = bias.bias_of(counts, rule, staged.world.truth)
    last = ranked[-13:]  # 132 pairs in ten parts: the last has 13
    lost = 1 - sum(pairs[rule][p] for p in last) / sum(pairs[BEFORE][p] for p in last)
    assert found["dropped in decile 10"] == pytest.approx(lost)


@pytest.mark.slow
def test_every_planted_row_is_found_for_its_reason(staged: StagedWorld) -> None:
    """Rows dropped for every reason as planted; without queries that name two cities every cell as planted too."""
    found = queries.row_fates(staged)
    assert found["planted"] == found["found"]
    assert "more than N queries in a day" in found["found"]
    assert found["too few"] == 0 < found["too many"] <= found["kinds"]["several"]
    exact = queries.row_fates(staged_world(SMALL, staged.folder.parent, several_share=0.0))
    assert exact["cells that differ"] == 0 < exact["sure"]


@pytest.mark.slow
def test_a_missing_row_of_a_reason_is_seen(staged: StagedWorld, tmp_path: Path) -> None:
    """The comparison can fail: one planted row less is one row of difference."""
    other = StagedWorld(staged.setting, staged.world, tmp_path, staged.holders)
    for path in staged.folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "truth").unlink()
    (tmp_path / "truth").mkdir()
    for path in (staged.folder / "truth").iterdir():
        (tmp_path / "truth" / path.name).symlink_to(path)
    planted = json.loads((tmp_path / "truth" / "planted.json").read_text(encoding="utf-8"))
    planted["holder-1"]["dropped"]["stop term"] -= 1
    (tmp_path / "truth" / "planted.json").unlink()
    (tmp_path / "truth" / "planted.json").write_text(json.dumps(planted), encoding="utf-8")
    found = queries.row_fates(other)
    assert found["found"]["stop term"] == found["planted"]["stop term"] + 1


def made_up(priority: str, *, persons: int = 400) -> Bounding:
    """People with 8 contributions in 8 steps, of whom k = 4 stay by a priority that knows the time, or does not."""
    rng = np.random.default_rng(3)
    step = np.tile(np.arange(8), persons)
    known = {"time": step, "hash": rng.permutation(8 * persons)}[priority]
    columns = (np.repeat(np.arange(persons), 8), step, np.zeros_like(step), np.ones_like(step), known.astype(np.int64))
    table = query_bounding.Contributions(*columns)
    result = Bounding.empty((8, 2, 2), [4])
    for rule, rows in tables_by_rank(table, table, [4]).items():
        np.add.at(result.cells[rule], rows.cell, 1)
    query_bounding.add_choices(result, table, np.ones_like(step), [4])
    return result


def test_a_choice_that_knows_the_time_is_seen() -> None:
    """Keeping the first k leaves the second half empty; a choice by hash keeps half of every step, within its noise."""
    by_time, by_hash = (bias.over_time(made_up(priority), rule_of(4)) for priority in ("time", "hash"))
    assert by_time["kept, first half"] == 1.0
    assert by_time["kept, second half"] == 0.0
    assert by_time["kept, z of the first half"] > 20
    assert by_hash["expected, first half"] == pytest.approx(0.5)
    assert abs(by_hash["kept, z of the first half"]) < 3.5
    assert by_hash["kept, mean z squared"] < 3


def sides_shared(*, same_bits: bool, persons: int = 4000) -> Bounding:
    """People at home in two steps and looking at two cities in two others, once per side, then k = 2.

    With `same_bits` keep k is made to rank by the very bits that once per side has ranked by.
    """
    priority = np.random.default_rng(5).integers(0, 2**63, (persons, 2, 2)).min(axis=2)
    home = np.random.default_rng(6).integers(0, 2**63, (persons, 2))
    bits = np.concatenate([home, priority], axis=1).ravel()
    if same_bits:
        bits = ((bits & (2**32 - 1)) << 31) | (bits >> 32)  # which `other_order` turns back
    step, person = np.tile(np.arange(4), persons), np.repeat(np.arange(persons), 4)
    after = query_bounding.Contributions(person, step, np.zeros_like(step), 1 * (step > 1), bits)
    result = Bounding.empty((4, 2, 2), [2])
    query_bounding.add_choices(result, after, np.where(step > 1, SORTS.index("chosen on its side"), 0), [2])
    return result


def test_a_choice_by_the_bits_of_the_choice_before_is_seen() -> None:
    """Fixed seeds. Keep k by the bits of once per side favours what that has chosen; by the other order it does not."""
    same, other = (bias.by_sort(sides_shared(same_bits=same), rule_of(2)) for same in (True, False))
    assert same["kept, chosen on its side"] > 1.2
    assert same["kept, chosen on its side, z"] > 20 > -20 > same["kept, at home, z"]
    assert abs(other["kept, chosen on its side, z"]) < 3.5
    assert abs(other["kept, at home, z"]) < 3.5


def test_no_sort_of_contributions_is_favoured(counts: Bounding) -> None:
    """Of a world of 40,000 rows, whose priorities are fixed: every sort is kept as a choice at random would."""
    for k in KS:
        found = bias.by_sort(counts, rule_of(k))
        assert max(abs(found[f"kept, {sort}, z"]) for sort in SORTS) < 3.5


def test_variance_of_a_random_choice() -> None:
    """Of 8 contributions 4 stay: of one of a step with variance 1/4, of four of a half with 4/7, of all without any."""
    found = made_up("time")
    np.testing.assert_allclose(found.variance[rule_of(4)]["step"], 400 / 4)
    np.testing.assert_allclose(found.variance[rule_of(4)]["half"], 400 * 4 / 7)
    np.testing.assert_allclose(found.variance[rule_of(4)]["sort"], 0)
    np.testing.assert_allclose(found.expected[rule_of(4)][:, 1], 400 / 2)
    np.testing.assert_allclose(found.kept[rule_of(4)].sum(), 400 * 4)
    assert SORTS[1] == "alone on its side"


def test_errors_of_a_case_worked_out_by_hand() -> None:
    """Two steps of two cities; clean cells 4, 2 and 2, 0, bounded 2, 2 and 1, 0."""
    result = Bounding.empty((2, 2, 2), [1])
    result.cells[BEFORE][:] = [[[9, 4], [2, 9]], [[9, 2], [0, 9]]]
    result.cells[rule_of(1)][:] = [[[5, 2], [2, 5]], [[5, 1], [0, 5]]]
    found = bias.errors_of(result, rule_of(1), None)
    assert found["cells WMAPE"] == pytest.approx(3 / 8)
    assert found["cells relative RMSE"] == pytest.approx(np.sqrt(5 / 4) / 2)
    assert found["inflow WMAPE"] == pytest.approx(3 / 8)  # the only way in is the one pair
    factor = 8 / 5
    errors = np.array([2 * factor - 4, 2 * factor - 2, factor - 2, 0.0])
    assert found["cells rescaled relative RMSE"] == pytest.approx(np.sqrt(np.square(errors).mean()) / 2)
    assert found["cells of the period WMAPE"] == pytest.approx((3 + 0) / 8)
    released = NoisyCounts(
        values={
            "cells": result.cells[rule_of(1)] + 1,
            "inflow": np.array([[2, 5], [0, 4]]),
            "outflow": np.array([[2, 2], [1, 0]]),
        },
        stddev={"cells": 1.0, "inflow": 1.0, "outflow": 1.0},
    )
    noisy = bias.errors_of(result, rule_of(1), released)
    assert noisy["cells WMAPE"] == pytest.approx((1 + 1 + 0 + 1) / 8)
    assert noisy["inflow WMAPE"] == pytest.approx((0 + 1 + 0 + 2) / 8)


def test_noise_of_a_release_is_in_its_error(counts: Bounding) -> None:
    """Without bias the relative RMSE of cells is the stated noise over their mean."""
    plan = bias.mechanism(10, 2.0)
    released = bias.release(counts, BEFORE, plan, "test")
    found = bias.errors_of(counts, BEFORE, released)
    mean = bias.off_diagonal(counts.cells[BEFORE]).sum() / (10 * 12 * 11)
    assert found["cells relative RMSE"] == pytest.approx(plan.cells_stddev / mean, rel=0.1)
    again = bias.release(counts, BEFORE, plan, "test")
    np.testing.assert_array_equal(released.values["cells"], again.values["cells"])


def cities(number: int, seed: int = 0) -> tuple[Regions, list[str | None]]:
    rng = np.random.default_rng(seed)
    codes = tuple(f"C{city:03d}" for city in range(number))
    regions = Regions(codes, codes, rng.uniform(25, 40, number), rng.uniform(100, 120, number))
    return regions, [f"P{city % 3}" if city else None for city in range(number)]


def rates(regions: Regions, provinces: list[str | None], effects: np.ndarray, *, decay: float) -> np.ndarray:
    """Expected counts of the estimator's own model. Shapes: effects (2, N) -> (N, N)"""
    same = np.array([[one is not None and one == other for other in provinces] for one in provinces])
    distance = np.log(np.maximum(regions.distance_km(), 1.0))
    return bias.off_diagonal(np.exp(12 + effects[0][:, None] + effects[1][None, :] - decay * distance + 0.7 * same))


def test_gravity_finds_its_own_parameters_and_agrees_with_statsmodels() -> None:
    """On expected counts the truth; on Poisson counts what another implementation finds."""
    regions, provinces = cities(15)
    effects = np.random.default_rng(1).normal(size=(2, 15))
    mu = rates(regions, provinces, effects, decay=1.1)
    exact = attraction.fit_gravity(mu, regions, provinces)
    assert exact.decay == pytest.approx(1.1, abs=0.01)
    assert exact.province == pytest.approx(0.7, abs=0.01)
    assert attraction.rank_agreement(exact.attraction, effects[1]) == 1.0
    drawn = np.random.default_rng(2).poisson(mu)
    o, d = np.nonzero(~np.eye(15, dtype=bool))
    names = np.array([name or "none" for name in provinces])
    design = np.column_stack(
        [np.eye(15)[o], np.eye(15)[d][:, 1:], np.log(regions.distance_km()[o, d]), names[o] == names[d]]
    )
    oracle = sm.GLM(drawn[o, d], design, family=sm.families.Poisson()).fit()
    found = attraction.fit_gravity(drawn, regions, provinces)
    assert found.decay == pytest.approx(-oracle.params[-2], abs=0.01)
    theirs = np.r_[0.0, oracle.params[15:29]]
    np.testing.assert_allclose(found.attraction - found.attraction[0], theirs, atol=0.02)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(1.0, 1e5))
def test_gravity_is_finite_whatever_the_noise(seed: int, noise: float) -> None:
    """Negative sums of cities, even a negative total, leave a fit, and every ranking one of all cities."""
    regions, provinces = cities(6)
    counts = bias.off_diagonal(np.random.default_rng(seed).normal(0, noise, (6, 6)))
    found = attraction.fit_gravity(counts, regions, provinces)
    assert np.isfinite([*found.attraction, *found.outflow, found.decay, found.province]).all()


def noisy(cells: np.ndarray, columns: np.ndarray, scale: float, margin: float, rng: np.random.Generator) -> NoisyCounts:
    drawn = {name: counts + np.rint(rng.normal(0, scale if name == "cells" else margin, counts.shape)).astype(np.int64)
             for name, counts in bias.queries_of(cells, columns).items()}  # fmt: skip
    return NoisyCounts(values=drawn, stddev={"cells": scale, "inflow": margin, "outflow": margin})


def test_margins_make_sums_better_and_add_up_over_holders() -> None:
    """With margins the sums of cities are nearer the truth by what their variances say; two holders have more noise."""
    rng = np.random.default_rng(4)
    cells = rng.poisson(30.0, (5, 12, 12)).astype(np.int64)
    truth = bias.off_diagonal(cells).sum(axis=(0, 1))
    parts = (np.arange(12),), (np.arange(6), np.arange(6, 12))
    errors = {}
    for split in parts:
        for margins in (True, False):
            found = []
            for _ in range(60):
                releases = [(noisy(cells[:, held], held, 9.0, 13.0, rng), held) for held in split]
                if not margins:
                    releases = [
                        (NoisyCounts({"cells": r.values["cells"]}, {"cells": r.stddev["cells"]}), held)
                        for r, held in releases
                    ]
                summed = attraction.period_counts(releases, 12)
                assert not np.diag(summed).any()
                found.append(summed.sum(axis=0) - truth)
            errors[len(split), margins] = float(np.square(found).mean())
    of_cells, of_margin = 5 * 11 * 81.0, 5 * 169.0
    assert errors[1, False] == pytest.approx(of_cells, rel=0.2)
    assert errors[2, False] == pytest.approx(of_cells, rel=0.2)
    assert errors[1, True] == pytest.approx(1 / (1 / of_cells + 1 / of_margin), rel=0.2)
    assert errors[2, True] == pytest.approx(1 / (1 / of_cells + 1 / (2 * of_margin)), rel=0.2)


def test_shares_of_a_shock() -> None:
    """A city that doubles for two steps goes from a half to two thirds of the inflow."""
    inflow = np.ones((8, 2))
    inflow[3:5, 1] = 2.0
    shock = Shock("opening", 3, 5, (1,), 0.0, float(np.log(2)))
    during, around = attraction.shock_effect(inflow, shock)
    assert during == pytest.approx(2 / 3)
    assert around == pytest.approx(1 / 2)


@pytest.mark.slow
def test_attraction_is_recovered_from_clean_and_bounded_counts(staged: StagedWorld) -> None:
    """The goal of 0.9 on a world of 40,000 rows, by one holder and by four; shuffled cities have no agreement."""
    for case, measure in queries.measure_attraction(staged, 10, [], 0):
        found = measure()
        assert found["spearman"] >= 0.9, case
    counts = np.random.default_rng(0).permutation(staged.counted(POOLED, 10).plain_counts, axis=2)
    assert queries.agreement(staged, counts)["spearman"] < 0.7


@pytest.mark.slow
def test_a_file_is_continued_and_printed(
    staged: StagedWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run measures what is new alone, and prints all tables of the file."""
    out = tmp_path / "out.json"
    size = ["--queries", "4e4", "--cities", "12", "--days", "70", "--seed", "5"]
    where = [*size, "--work", str(staged.folder.parent), "--out", str(out)]
    queries.main(["bias", *where, "--contributions", "1", "3", "--epsilons", "2"])
    first = capsys.readouterr().out
    before = json.loads(out.read_text())["results"]
    assert "| k = 3 |" in first
    assert "## Attraction" not in first
    queries.main(["bias", *where, "--contributions", "1", "3", "--epsilons", "2"])
    assert capsys.readouterr().out == first
    queries.main(["attraction", *where, "--epsilons", "2", "8", "--draws", "2"])
    second = capsys.readouterr().out
    after = json.loads(out.read_text())["results"]
    assert after[: len(before)] == before
    assert "## Attraction" in second
    released = [r for r in after if "epsilon" in r["case"] and r["case"]["part"] == "attraction"]
    assert len(released) == 2 * 2 * 2 * 2
    quiet, loud = (
        np.mean([r["figures"]["noise of a cell"] for r in released if r["case"]["epsilon"] == epsilon])
        for epsilon in (8, 2)
    )
    assert quiet < loud / 3

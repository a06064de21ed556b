"""The card of a run tells the truth: everything that was sent is listed, in its size, with what it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from privacy.card import PrivacyCard, ReleasedObject
from privacy.plan import CountReleasePlan
from privacy.secure_aggregation.messages import Contribution
from protocol.masked_messages import MaskedReply
from protocol.messages import READY, EvaluateReply, StatisticsReply, TrainReply
from server.cards.words import not_promised, registry
from simulations import protection
from simulations.results import RunResult
from simulations.runner import simulate
from tests.plans import PLAIN, digests, tiny_plan

pytestmark = pytest.mark.slow

ALONE = {"compare.alone": False, "compare.pooled": False, "federation.vectorise": "never"}
COUNTS = ALONE | {"privacy.epsilon": 2.0, "privacy.delta": 1e-6, "privacy.contributions": 4, "report.pairs": 50}
WINDOWS = COUNTS | {
    "privacy.mode": "window-dpsgd", "privacy.epsilon": 8.0, "privacy.score_against": "truth",
    "federation.shares": ["weights"], "federation.vectorise": "auto", "training.select": "last",
    "model.node_features": False,
}  # fmt: skip
BOTH = {"federation.shares": ["weights", "weights+margins"], "data.index": "total_share", "data.block_steps": 4}
MODES: dict[str, dict[str, Any]] = {
    "none": ALONE | BOTH | PLAIN,
    "counts": COUNTS | BOTH | PLAIN,
    "truth": COUNTS | BOTH | PLAIN | {"privacy.score_against": "truth"},
    "windows": WINDOWS | {"federation.aggregation": "robust"},
    "masked": ALONE | BOTH,
}
SEEN = [mode for mode in MODES if mode != "masked"]
Sent = dict[str, list[int]]


class Runs:
    """One run in each mode, with the sizes of all that holders sent."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent = folder, {mode: {} for mode in MODES}
        for mode, values in MODES.items():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(protection, "require_conformance", lambda subject: [])
                _listen(patch, self.sent[mode])
                simulate(
                    tiny_plan(values),
                    out=folder / mode,
                    ledgers=folder / "ledgers" / ("w" if mode == "windows" else "c"),
                )

    def result(self, mode: str) -> RunResult:
        return RunResult.read(self.folder / mode)

    def card(self, mode: str) -> PrivacyCard:
        return self.result(mode).card


def _listen(patch: pytest.MonkeyPatch, sent: Sent) -> None:
    """Note the size of every array and number in a holder's answers."""

    def told(kind: type[Any], sizes: Any) -> None:
        original = kind.to_records

        def to_records(self: Any) -> Any:
            for name, size in sizes(self).items():
                sent.setdefault(name, []).append(size)
            return original(self)

        patch.setattr(kind, "to_records", to_records)

    told(StatisticsReply, lambda reply: {name: value.size for name, value in reply.arrays.items()})
    told(
        TrainReply,
        lambda reply: (
            {"weights": sum(value.size for value in reply.weights.values())}
            | ({} if reply.loss is None else {"loss": 1})
        ),
    )
    told(EvaluateReply, lambda reply: {"error": 1})
    told(MaskedReply, lambda reply: {"words": len(Contribution.from_bytes(reply.contribution).masked) // 4})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("cards"))


def listed(card: PrivacyCard, start: str) -> ReleasedObject:
    (found,) = [each for each in card.released if each.name.startswith(start)]
    return found


@pytest.mark.parametrize("mode", SEEN)
def test_what_holders_sent_is_listed_in_its_size(runs: Runs, mode: str) -> None:
    """The sizes come from the answers themselves; nothing was sent that the card has no line for."""
    sent, card, holders = dict(runs.sent[mode]), runs.card(mode), 3
    names = {
        "least-squares weights": ["linear", "cells"],
        "totals per step": ["totals"],
        "coarse mobility": ["margin.coarse"],
        "least-squares sums": ["gram", "cross"],
        "margins": [name for name in sent if name.startswith("margin.") and name != "margin.coarse"],
        "model weights": ["weights"],
        "loss": ["loss"],
        "validation error": ["error"],
    }
    for start, arrays in names.items():
        if not any(name in sent for name in arrays):
            assert not [each for each in card.released if each.name.startswith(start)]
            continue
        found, answers = listed(card, start), [sent.pop(name) for name in arrays]
        assert found.numbers == sum(each[0] for each in answers)
        assert found.times == len(answers[0]) / holders
        assert found.size_bytes == (found.numbers or 0) * (4 if start == "model weights" else 8)
        assert all(len(set(each)) == 1 for each in answers)
    assert not sent


def test_masked_sums_are_listed_in_their_size(runs: Runs) -> None:
    """All that a holder sends is words of masked sums: as many bytes as the card lists, and no number beside them.

    Of each opened sum the coordinator makes one answer for its strategy, with weights and a loss: one, not three.
    """
    card, holders = runs.card("masked"), 3
    assert set(runs.sent["masked"]) == {"words", "weights", "loss"}
    assert len(runs.sent["masked"]["weights"]) == listed(card, "model weights").times
    sums = [each for each in card.released if each.place == "leaves a holder" and "masked: it learns" in each.goes_to]
    listed_bytes = sum((each.size_bytes or 0) * (each.times or 0) for each in sums)
    assert listed_bytes * holders == 4 * sum(runs.sent["masked"]["words"])
    assert {each.name for each in card.released} > {"salted hash of its part of each sum, signed"}
    assert not [each for each in card.released if "unmasked" in each.goes_to]


def test_windows_send_weights_alone(runs: Runs) -> None:
    """No sum, no loss, no error of raw data left a holder."""
    assert set(runs.sent["windows"]) == {"weights"}
    origins = {each.name: each.origin for each in runs.card("windows").released if each.place == "leaves a holder"}
    assert {name for name, origin in origins.items() if origin == "raw data"} == {"rows of all holders, for scoring"}
    assert origins["model weights after each round"] == "noised release"


@pytest.mark.parametrize(
    ("mode", "raw"),
    [
        ("none", {"model", "observed", "forecasts", "ends", "parts", "attraction", "flows", "errors", "comparisons",
                  "homophily", "report", "journal", "log"}),
        ("counts", set()),
        ("truth", {"errors", "comparisons", "report", "journal"}),
        ("masked", {"model", "observed", "forecasts", "ends", "parts", "attraction", "flows", "errors", "comparisons",
                    "homophily", "report", "journal", "log"}),
        ("windows", {"observed", "forecasts", "ends", "parts", "attraction", "flows", "errors", "comparisons",
                     "homophily", "report", "journal"}),
    ],
)  # fmt: skip
def test_what_in_the_folder_is_made_of_raw_counts(runs: Runs, mode: str, raw: set[str]) -> None:
    names = {
        "model.safetensors": "model", "forecasts.csv: observed": "observed", "forecasts.csv: forecasts": "forecasts",
        "forecasts.csv: ends": "ends", "parts": "parts", "attraction": "attraction", "flows": "flows",
        "metrics": "errors", "run.json: comparisons": "comparisons", "run.json: homophily": "homophily",
        "report": "report", "journal": "journal", "run.log": "log",
    }  # fmt: skip
    card = runs.card(mode)
    assert {word for start, word in names.items() if listed(card, start).origin == "raw data"} == raw


@pytest.mark.parametrize("mode", MODES)
def test_sizes_in_the_folder_are_those_of_the_files(runs: Runs, mode: str) -> None:
    result = runs.result(mode)
    numbers = {each.name.partition(":")[0]: each.numbers for each in result.card.released if each.numbers}
    assert numbers["model.safetensors"] == sum(v.size for v in load_file(result.folder / "model.safetensors").values())
    assert numbers["flows.csv"] == len(result.flows)
    assert numbers["parts.parquet"] == len(result.parts)
    assert listed(result.card, "forecasts.csv: observed").numbers == result.forecasts["y"].notna().sum()
    assert listed(result.card, "forecasts.csv: forecasts").numbers == len(result.forecasts)
    assert listed(result.card, "run.json: comparisons").numbers == 3 * len(result.facts.comparisons)


def test_truth_is_in_the_errors_and_nowhere_else(runs: Runs) -> None:
    """The same release scored against raw counts: model, forecasts, intervals, parts and flows are the same bytes."""
    first, second = (digests(runs.folder / mode) for mode in ("counts", "truth"))
    different = {name for name in first if first[name] != second[name]}
    assert different == {"metrics.parquet"}


def test_released_counts_are_listed_for_each_holder(runs: Runs) -> None:
    counts = [each for each in runs.card("counts").released if each.name.startswith("counts with noise")]
    assert {(each.holder, each.name.rpartition(" ")[2]): each.numbers for each in counts} == {
        (holder, query): size
        for holder, rows in {"north": 3, "east": 2, "west": 3}.items()
        for query, size in {"cells": 60 * rows * 8, "inflow": 60 * 8, "outflow": 60 * rows}.items()
    }
    assert all(each.size_bytes == 8 * (each.numbers or 0) for each in counts)


def test_promises_say_what_they_rest_on(runs: Runs) -> None:
    """A person's rules for each query, a single count beside a person, and a window's worth to a person."""
    (counts,) = runs.card("counts").holders[0].promises
    assert counts.is_person
    assert counts.contributions_enforced is False
    assert [rule.partition(":")[0] for rule in counts.contribution_rules] == ["cells", "inflow", "outflow"]
    assert counts.event_epsilon is not None
    assert counts.event_epsilon < counts.epsilon
    words = " ".join(runs.card("counts").not_promised)
    assert "more than once in the inflow of one (destination, step) or the outflow of one (origin, step)" in words
    (windows,) = runs.card("windows").holders[0].promises
    assert not windows.is_person
    assert windows.event_epsilon is None
    owned, changed = windows.person_epsilon, windows.changed_epsilon
    assert sorted(owned) == sorted(changed) == [2, 6, 18]
    assert all((changed[g] or 1e9) > (owned[g] or 1e9) or owned[g] is None for g in owned)
    assert "Only weights are covered" in " ".join(runs.card("windows").not_promised)


def test_the_noise_of_shown_values(runs: Runs) -> None:
    """Shares of all queries: noise of a count over the total of a step; none where nothing shown has noise."""
    card = runs.card("counts")
    stddev = card.holders[0].promises[0].noise_stddev["cells"]
    assert card.shown.noise_stddev is not None
    assert 1e6 * stddev / 20_000 < card.shown.noise_stddev < 1e6 * stddev / 500
    assert (card.shown.origin, card.shown.scored) == ("post-processing", "post-processing")
    assert (runs.card("truth").shown.origin, runs.card("truth").shown.scored) == ("post-processing", "raw data")
    for mode in ("none", "masked", "windows"):
        shown = runs.card(mode).shown
        assert (shown.origin, shown.scored, shown.noise_stddev) == ("raw data", "raw data", None)


@pytest.mark.parametrize("mode", MODES)
def test_questions_registry_and_words(runs: Runs, mode: str) -> None:
    card = runs.card(mode)
    assert len(card.questions) == 10
    assert card.registry.tier == (None if mode in ("none", "masked") else 3)
    assert card.registry.year is None
    text = card.to_json().lower()
    assert "anonym" not in text
    assert "user-level" not in text
    if mode == "windows":
        assert "not a person" in card.headline
        assert "not a person" in card.registry.unit


def test_coarse_matrices_of_single_steps_are_called_what_they_are() -> None:
    plain = " ".join(not_promised(tiny_plan(PLAIN | {"data.block_steps": 1}), None))
    assert "every count it has" in plain
    assert "every count it has" not in " ".join(not_promised(tiny_plan({"data.block_steps": 4}), None))
    assert READY == "ready"  # asks for no contribution, so there is no line for it


def test_a_budget_for_several_campaigns_is_said_beside_the_epsilon_of_one() -> None:
    plan = tiny_plan(COUNTS | {"privacy.budget": 3.0})
    mechanism = CountReleasePlan(contributions=4, cells_stddev=9.0, margins_stddev=9.0)
    entry = registry(plan, mechanism, measure="trips", version="1", counted_by="PLD")
    assert entry.privacy_loss.startswith("epsilon 2, delta 1e-06 for this campaign, epsilon up to 3 with all others")
    alone = registry(tiny_plan(COUNTS), mechanism, measure="trips", version="1", counted_by="PLD")
    assert alone.privacy_loss.startswith("epsilon 2, delta 1e-06, per holder")


@pytest.mark.parametrize("margins", [9.0, None])
def test_bounded_cells_alone_do_not_make_the_margins_true(margins: float | None) -> None:
    """Margins are sums of cells, so bounding the cells is not enough; the card says what is."""
    mechanism = CountReleasePlan(contributions=4, cells_stddev=9.0, margins_stddev=margins)
    words = " ".join(not_promised(tiny_plan(COUNTS), mechanism))
    assert ("also once per side" in words) == (margins is not None)

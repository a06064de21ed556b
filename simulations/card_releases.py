"""Everything that leaves a holder in a simulated run, and everything in the run's folder, with what it is made of.

The list follows the code: `clients.agent` and `dhgsil.task` for what a holder sends, `simulations.tables` and
`simulations.facts` for what a reader gets. Whoever adds a message or a table adds it here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dhgsil.margins import Margins
from dhgsil.series import ODSeries
from dhgsil.task import data_section, model_section
from privacy.card import ALL, Origin, ReleasedObject
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.plan import Plan, Share
from server.run_folder import CARD_FILE, FACTS_FILE, JOURNAL_FILE, LOG_FILE, MODEL_FILE, PLAN_FILE
from simulations.protection import LEDGERS_FOLDER
from simulations.results import REPORT_FILE, RunFacts, RunTables
from simulations.run_tables import ATTRACTION, FLOWS, FORECASTS, METRICS, PARTS_TABLE, REGIONS
from simulations.sum_words import coordinator_gets, masking_messages, number_bytes

Mechanism = CountReleasePlan | DPSGDPlan
READERS = "readers of the run"
_ERRORS = ("rmse", "mae", "cpc", "mase", "coverage")
_DOUBLE, _SINGLE = 8, 4


@dataclass(frozen=True)
class Run:
    """What a card is made from: the plan, its mechanism, what the run saw, and what it left.

    Args:
        series: The counts that models were trained on: raw ones, or what was released.
        model_numbers: Numbers in the shared weights of a model.
        bounded: Whether the counts were made of records with a bound on each person, rather than came counted.
    """

    plan: Plan
    mechanism: Mechanism | None
    series: ODSeries
    tables: RunTables
    facts: RunFacts
    model_numbers: int
    bounded: bool = False

    @property
    def seen(self) -> Origin:
        """What graphs, inputs of models and drawn values are made of."""
        return "post-processing" if isinstance(self.mechanism, CountReleasePlan) else "raw data"

    @property
    def weights(self) -> Origin:
        """What models' weights are made of."""
        return "noised release" if isinstance(self.mechanism, DPSGDPlan) else self.seen

    @property
    def scored(self) -> Origin:
        """What errors are made of."""
        privacy = self.plan.privacy
        return self.seen if privacy is not None and privacy.score_against == "released" else "raw data"


def released(run: Run) -> Iterator[ReleasedObject]:
    """What leaves the holders, then what lies in the folder."""
    if isinstance(run.mechanism, CountReleasePlan):
        yield from _counts(run, run.mechanism)
    for share in run.plan.federation.shares:
        yield from _statistics(run, share)
    yield from _rounds(run)
    yield _leaves(
        f"rows of all holders{'' if run.plan.compare.pooled else ', for scoring'}",
        run.scored,
        numbers=run.series.num_steps * sum(map(len, run.plan.federation.holders.values())) * run.series.num_regions,
        holder=ALL,
        goes_to="the simulation itself, for baselines, pooled training and errors; nobody has them in the field",
    )
    yield from _folder(run)


def _leaves(
    name: str, origin: Origin, *, numbers: int | None, goes_to: str, holder: str | None = None, times: int | None = 1,
    width: int = _DOUBLE,
) -> ReleasedObject:  # fmt: skip
    size = None if numbers is None else width * numbers
    return ReleasedObject(
        name=name, origin=origin, place="leaves a holder", holder=holder, numbers=numbers, size_bytes=size,
        times=times, goes_to=goes_to,
    )  # fmt: skip


def _counts(run: Run, mechanism: CountReleasePlan) -> Iterator[ReleasedObject]:
    steps, regions = run.series.num_steps, run.series.num_regions
    for name, codes in run.plan.federation.holders.items():
        sizes = {"cells": steps * len(codes) * regions}
        if mechanism.margins_stddev is not None:
            sizes |= {"inflow": steps * regions, "outflow": steps * len(codes)}
        for query, numbers in sizes.items():
            yield _leaves(
                f"counts with noise: {query}", "noised release", holder=name, numbers=numbers,
                goes_to="this holder's training and all that is made of it; the promise holds if they are published",
            )  # fmt: skip


def _statistics(run: Run, share: Share) -> Iterator[ReleasedObject]:
    """Sums over holders before the first round; see the table in `dhgsil.task`."""
    if run.plan.trains_privately:
        return
    data, steps, regions = data_section(run.plan), run.series.num_steps, run.series.num_regions
    columns = data.input_steps + model_section(run.plan).num_pair_features + 1
    to, width = f"{coordinator_gets(run.plan)}, and as sums to all holders", number_bytes(run.plan, update=False)
    times = _trainings(run.plan, share)
    if share == "weights":
        yield _leaves(
            "least-squares weights of its own rows, and their number (share weights)", run.seen,
            numbers=columns * data.horizon + 1, times=times, goes_to=to, width=width,
        )  # fmt: skip
        return
    if data.index == "total_share":
        yield _leaves(
            "totals per step (share weights+margins)", run.seen, numbers=steps, times=times, goes_to=to, width=width
        )
    blocks = steps // data.block_steps
    by_region = len(Margins.__dataclass_fields__) - 2  # all but the coarse matrices and their number of steps
    yield _leaves(
        "margins: totals, entropies and levels per region and step (share weights+margins)", run.seen,
        numbers=by_region * steps * regions, times=times, goes_to=to, width=width,
    )  # fmt: skip
    coarse = "each step" if data.block_steps == 1 else f"each {data.block_steps} steps"
    yield _leaves(
        f"coarse mobility matrices, the mean of {coarse} (share weights+margins)", run.seen,
        numbers=blocks * regions**2, times=times, goes_to=to, width=width,
    )  # fmt: skip
    yield _leaves(
        "least-squares sums (share weights+margins)", run.seen, numbers=columns * (columns + data.horizon),
        times=times, goes_to=to, width=width,
    )  # fmt: skip


def _rounds(run: Run) -> Iterator[ReleasedObject]:
    plan = run.plan
    trainings = sum(_trainings(plan, share) for share in plan.federation.shares)
    rounds, to, width = plan.training.rounds * trainings, coordinator_gets(plan), number_bytes(plan, update=False)
    combined = (
        f"what comes of {plan.federation.robust_rule}" if plan.federation.aggregation == "robust" else "their mean"
    )
    yield _leaves(
        "model weights after each round", run.weights, numbers=run.model_numbers,
        width=number_bytes(plan, update=True), times=rounds, goes_to=f"{to}; {combined} goes back to all holders",
    )  # fmt: skip
    if not plan.trains_privately:
        yield _leaves("loss of each round", run.seen, numbers=1, times=rounds, goes_to=to, width=width)
        unseen = rounds if plan.training.fit_on == "train" else plan.training.rounds
        yield _leaves("validation error of each round", run.seen, numbers=1, times=unseen, goes_to=to, width=width)
    yield _leaves(
        "number of its scored cells, with each answer", "public", numbers=1, times=None, goes_to="the coordinator"
    )
    for name, made_of, receiver in masking_messages(plan, run.weights):
        yield _leaves(name, made_of, numbers=None, times=None, goes_to=receiver)
    if run.mechanism is not None:
        yield _leaves(
            "length and hash of its ledger, with each answer", "post-processing", numbers=None, times=None,
            goes_to="the coordinator, who stores them, and through it all holders, who remember them while they run",
        )  # fmt: skip


def _trainings(plan: Plan, share: Share) -> int:
    """Federated trainings with this share: one, and one more that intervals are calibrated on."""
    return 1 + (plan.training.fit_on == "train+validation" and share == plan.federation.shares[-1])


def _folder(run: Run) -> Iterator[ReleasedObject]:
    tables, facts = run.tables, run.facts
    models: Origin = "raw data" if "raw data" in (run.seen, run.weights) else "post-processing"
    known = int(tables.forecasts["y"].notna().sum())
    values = int(tables.metrics[list(_ERRORS)].notna().to_numpy().sum())
    h = sum(1 if graph.null is None else 2 for graph in facts.homophily.values())
    yield _kept(f"{MODEL_FILE}: the final model", run.weights, run.model_numbers, size=_SINGLE * run.model_numbers)
    yield _kept(f"{FORECASTS.file}: observed values", run.seen, known)
    yield _kept(f"{FORECASTS.file}: forecasts", models, len(tables.forecasts))
    yield _kept(f"{FORECASTS.file}: ends of 90 % intervals", models, 2 * len(tables.forecasts))
    yield _kept(f"{PARTS_TABLE.file}: parts of forecasts", models, len(tables.parts))
    yield _kept(f"{ATTRACTION.file}: attraction, last and predicted", models, 4 * len(tables.attraction))
    yield _kept(f"{FLOWS.file}: forecast flows", models, len(tables.flows))
    yield _kept(f"{METRICS.file}: errors of all models", run.scored, values)
    yield _kept(f"{FACTS_FILE}: comparisons of errors", run.scored, 3 * len(facts.comparisons))
    yield _kept(f"{FACTS_FILE}: homophily of the graphs", run.seen, h)
    worst: Origin = "raw data" if "raw data" in (run.scored, models) else "post-processing"
    yield _kept(f"{REPORT_FILE}: what is drawn of all these", worst, None)
    yield _kept(
        f"{JOURNAL_FILE}: sums, weights, training states of the simulated holders, errors of each window", worst, None,
        goes_to="whoever can read the folder; needed to resume, may be deleted after",
    )  # fmt: skip
    losses: Origin = "public" if run.plan.trains_privately else run.seen
    yield _kept(f"{LOG_FILE}: {'steps of the run' if losses == 'public' else 'losses of rounds'}", losses, None)
    if run.mechanism is not None:
        yield _kept(
            f"{LEDGERS_FOLDER}/, unless --ledgers names another place: ledgers and the bytes of what was released",
            "noised release", None, goes_to="the simulated holders; their signing keys lie there too: pass nothing on",
        )  # fmt: skip
    yield _kept(f"{PLAN_FILE}, {REGIONS.file}, {CARD_FILE}, versions", "public", None)


def _kept(
    name: str, origin: Origin, numbers: int | None, *, size: int | None = None, goes_to: str = READERS
) -> ReleasedObject:
    place: Literal["run folder"] = "run folder"
    return ReleasedObject(
        name=name, origin=origin, place=place, numbers=numbers, size_bytes=size, times=None, goes_to=goes_to
    )

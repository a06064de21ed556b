"""Everything that leaves a holder in a simulated run, and everything in the run's folder, with what it is made of.

What a holder sends is listed in `server.cards.sent`, the same as in a deployment. What a reader gets follows
`simulations.tables` and `simulations.facts`: whoever adds a table adds it here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dhgsil.series import ODSeries
from privacy.card import ALL, Origin, ReleasedObject
from privacy.mechanisms import Mechanism
from protocol.plan import Plan
from server.cards.sent import Sent, leaving, losses_of, released_counts, seen_of, sent_by_forecasters, weights_of
from server.run_folder import CARD_FILE, FACTS_FILE, JOURNAL_FILE, LOG_FILE, MODEL_FILE, PLAN_FILE, REPORT_FILE
from simulations.protection import LEDGERS_FOLDER
from simulations.results import RunFacts, RunTables
from simulations.run_tables import ATTRACTION, FLOWS, FORECASTS, METRICS, PARTS_TABLE, REGIONS

READERS = "readers of the run"
_ERRORS = ("rmse", "mae", "cpc", "mase", "coverage")
_SINGLE = 4


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
        return seen_of(self.mechanism)

    @property
    def weights(self) -> Origin:
        """What models' weights are made of."""
        return weights_of(self.mechanism)

    @property
    def scored(self) -> Origin:
        """What errors are made of."""
        privacy = self.plan.privacy
        return self.seen if privacy is not None and privacy.score_against == "released" else "raw data"

    @property
    def sent(self) -> Sent:
        """What the sizes of its messages follow from."""
        return Sent(
            plan=self.plan, mechanism=self.mechanism, num_steps=self.series.num_steps,
            num_regions=self.series.num_regions, model_numbers=self.model_numbers,
        )  # fmt: skip


def released(run: Run) -> Iterator[ReleasedObject]:
    """What leaves the holders, then what lies in the folder."""
    yield from released_counts(run.sent)
    yield from sent_by_forecasters(run.sent)
    yield leaving(
        f"rows of all holders{'' if run.plan.compare.pooled else ', for scoring'}",
        run.scored,
        numbers=run.series.num_steps * sum(map(len, run.plan.federation.holders.values())) * run.series.num_regions,
        holder=ALL,
        goes_to="the simulation itself, for baselines, pooled training and errors; nobody has them in the field",
    )
    yield from _folder(run)


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
    losses = losses_of(run.plan, run.mechanism)
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

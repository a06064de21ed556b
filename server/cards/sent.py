"""What leaves the holders of a forecasting run: every message with its size, and what it is made of.

The list follows the code: `clients.agent` and `dhgsil.task` for what a holder sends. Whoever adds a message adds it
here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dhgsil.margins import Margins
from dhgsil.task import data_section, model_section
from privacy.card import Origin, ReleasedObject
from privacy.mechanisms import Mechanism
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.plan import Plan, Share
from server.cards.sum_words import coordinator_gets, masking_messages, number_bytes

_DOUBLE = 8


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What the sizes of a run's messages follow from, all of it public.

    Args:
        num_steps: Of the grid.
        num_regions: Of the grid.
        model_numbers: Numbers in the shared weights of a model.
    """

    plan: Plan
    mechanism: Mechanism | None
    num_steps: int
    num_regions: int
    model_numbers: int

    @property
    def seen(self) -> Origin:
        """What graphs and inputs of models are made of."""
        return seen_of(self.mechanism)

    @property
    def weights(self) -> Origin:
        """What models' weights are made of."""
        return weights_of(self.mechanism)


def seen_of(mechanism: Mechanism | None) -> Origin:
    """What graphs, inputs of models and drawn values are made of."""
    return "post-processing" if isinstance(mechanism, CountReleasePlan) else "raw data"


def weights_of(mechanism: Mechanism | None) -> Origin:
    """What models' weights are made of."""
    return "noised release" if isinstance(mechanism, DPSGDPlan) else seen_of(mechanism)


def losses_of(plan: Plan, mechanism: Mechanism | None) -> Origin:
    """What losses and validation errors of rounds are made of; a private training tells none."""
    return "public" if plan.trains_privately else seen_of(mechanism)


def sent_by_forecasters(run: Sent) -> Iterator[ReleasedObject]:
    """All that leaves a holder of a forecasting run; its noised counts, which it keeps, are `released_counts`."""
    for share in run.plan.federation.shares:
        yield from _statistics(run, share)
    yield from _rounds(run)


def leaving(
    name: str, origin: Origin, *, numbers: int | None, goes_to: str, holder: str | None = None, times: int | None = 1,
    width: int = _DOUBLE,
) -> ReleasedObject:  # fmt: skip
    size = None if numbers is None else width * numbers
    return ReleasedObject(
        name=name, origin=origin, place="leaves a holder", holder=holder, numbers=numbers, size_bytes=size,
        times=times, goes_to=goes_to,
    )  # fmt: skip


def released_counts(run: Sent, *, kept: bool = False) -> Iterator[ReleasedObject]:
    """Counts with noise of every holder, where a run releases any; `kept`: no holder lets them out of its hands."""
    mechanism, steps, regions = run.mechanism, run.num_steps, run.num_regions
    if not isinstance(mechanism, CountReleasePlan):
        return
    for name, codes in run.plan.federation.holders.items():
        sizes = {"cells": steps * len(codes) * regions}
        if mechanism.margins_stddev is not None:
            sizes |= {"inflow": steps * regions, "outflow": steps * len(codes)}
        for query, numbers in sizes.items():
            left = leaving(
                f"counts with noise: {query}", "noised release", holder=name, numbers=numbers,
                goes_to="this holder's training and all that is made of it; the promise holds if they are published",
            )  # fmt: skip
            yield left.model_copy(update={"place": "stays with its holder"}) if kept else left


def _statistics(run: Sent, share: Share) -> Iterator[ReleasedObject]:
    """Sums over holders before the first round; see the table in `dhgsil.task`."""
    if run.plan.trains_privately:
        return
    data, steps, regions = data_section(run.plan), run.num_steps, run.num_regions
    columns = data.input_steps + model_section(run.plan).num_pair_features + 1
    to, width = f"{coordinator_gets(run.plan)}, and as sums to all holders", number_bytes(run.plan, update=False)
    times = _trainings(run.plan, share)
    if share == "weights":
        yield leaving(
            "least-squares weights of its own rows, and their number (share weights)", run.seen,
            numbers=columns * data.horizon + 1, times=times, goes_to=to, width=width,
        )  # fmt: skip
        return
    if data.index == "total_share":
        yield leaving(
            "totals per step (share weights+margins)", run.seen, numbers=steps, times=times, goes_to=to, width=width
        )
    blocks = steps // data.block_steps
    by_region = len(Margins.__dataclass_fields__) - 2  # all but the coarse matrices and their number of steps
    yield leaving(
        "margins: totals, entropies and levels per region and step (share weights+margins)", run.seen,
        numbers=by_region * steps * regions, times=times, goes_to=to, width=width,
    )  # fmt: skip
    coarse = "each step" if data.block_steps == 1 else f"each {data.block_steps} steps"
    yield leaving(
        f"coarse mobility matrices, the mean of {coarse} (share weights+margins)", run.seen,
        numbers=blocks * regions**2, times=times, goes_to=to, width=width,
    )  # fmt: skip
    yield leaving(
        "least-squares sums (share weights+margins)", run.seen, numbers=columns * (columns + data.horizon),
        times=times, goes_to=to, width=width,
    )  # fmt: skip


def _rounds(run: Sent) -> Iterator[ReleasedObject]:
    plan = run.plan
    trainings = sum(_trainings(plan, share) for share in plan.federation.shares)
    rounds, to, width = plan.training.rounds * trainings, coordinator_gets(plan), number_bytes(plan, update=False)
    combined = (
        f"what comes of {plan.federation.robust_rule}" if plan.federation.aggregation == "robust" else "their mean"
    )
    yield leaving(
        "model weights after each round", run.weights, numbers=run.model_numbers,
        width=number_bytes(plan, update=True), times=rounds, goes_to=f"{to}; {combined} goes back to all holders",
    )  # fmt: skip
    if not plan.trains_privately:
        yield leaving("loss of each round", run.seen, numbers=1, times=rounds, goes_to=to, width=width)
        unseen = rounds if plan.training.fit_on == "train" else plan.training.rounds
        yield leaving("validation error of each round", run.seen, numbers=1, times=unseen, goes_to=to, width=width)
    yield leaving(
        "number of its scored cells, with each answer", "public", numbers=1, times=None, goes_to="the coordinator"
    )
    for name, made_of, receiver in masking_messages(plan, run.weights):
        yield leaving(name, made_of, numbers=None, times=None, goes_to=receiver)
    if run.mechanism is not None:
        yield leaving(
            "length and hash of its ledger, with each answer", "post-processing", numbers=None, times=None,
            goes_to="the coordinator, who stores them, and through it all holders, who remember them while they run",
        )  # fmt: skip


def _trainings(plan: Plan, share: Share) -> int:
    """Federated trainings with this share: one, and one more that intervals are calibrated on."""
    return 1 + (plan.training.fit_on == "train+validation" and share == plan.federation.shares[-1])

"""What the conformance checks exercise: the very callables that a private run uses, gathered in one value.

A check asks a `Subject` and nothing else, so the same check runs on the production code and on a twin of it with one
piece broken on purpose (`privacy.audits.defects`). `production()` holds the production code itself, not a copy::

    conformance(production())
    conformance(replace(production(), epsilon=optimistic_accountant))     # must fail
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from privacy.accounting import epsilon
from privacy.audits.small_counting import small_counting
from privacy.audits.small_training import small_training
from privacy.bounding import BoundedCounts, CountGrid, Persons, Places, bound_contributions
from privacy.campaign import campaign_events, check_population_delta
from privacy.discrete_gaussian import holder_stddev
from privacy.dpsgd import DPSGD
from privacy.events import PrivacyEvent
from privacy.ledger import Ledger
from privacy.mixing import check_examples_apart
from privacy.per_example import Batch, LossFunction
from privacy.plan import CountReleasePlan, DPSGDPlan
from privacy.quantise import Quantiser
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts, release_counts
from privacy.secure_aggregation.coordinator import Enrolment, MaskedSum
from privacy.secure_aggregation.holder import MaskingHolder
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.transcript import SessionRecord, SumRecord, VerifiedSum, verify_sum


class TrainingCase(Protocol):
    """A loss, a model and examples on which DP-SGD is tried, and the loop that a run would take."""

    @property
    def name(self) -> str:
        """Which task this is."""
        ...

    @property
    def loss(self) -> LossFunction:
        """(model, batch) -> one loss per example."""
        ...

    @property
    def model(self) -> nn.Module:
        """The model, as at the start of training."""
        ...

    @property
    def num_examples(self) -> int:
        """Examples there are."""
        ...

    def batch(self, positions: np.ndarray) -> Batch:
        """Tensors of some examples."""
        ...

    def train(self, mechanism: DPSGD) -> None:
        """Take all steps of the mechanism's plan, as a run takes them."""
        ...


class BoundContributions(Protocol):
    """See `privacy.bounding.bound_contributions`."""

    def __call__(
        self,
        persons: Persons,
        steps: Places,
        origins: Places,
        destinations: Places,
        *,
        grid: CountGrid,
        contributions: int,
        secret: bytes,
    ) -> BoundedCounts:
        """Counts of distinct persons."""
        ...


class CountingCase(Protocol):
    """Raw tables, what is counted of them, and what is made of the counts after they were released."""

    @property
    def name(self) -> str:
        """Which task this is."""
        ...

    def tables(self) -> tuple[Any, Any]:
        """Two raw tables of the same public lists with other counts; in the second nobody was ever at one place."""
        ...

    def queries(self, raw: Any) -> Mapping[str, np.ndarray]:
        """Bounded counts, ready to be released."""
        ...

    def derived(self, raw: Any, noisy: NoisyCounts) -> Mapping[str, np.ndarray]:
        """Everything that goes on to be used; `raw` is at hand there, and must not be read."""
        ...


@dataclass(frozen=True)
class Subject:
    """One set of mechanisms; each field is a piece that can be broken on its own."""

    stream: Callable[[], SecureStream]
    dpsgd: type[DPSGD]
    dpsgd_plan: type[DPSGDPlan]
    check_examples_apart: Callable[[LossFunction, nn.Module, Batch], None]
    training: TrainingCase
    bound: BoundContributions
    release: Callable[[Mapping[str, np.ndarray], CountReleasePlan, SecureStream], NoisyCounts]
    count_plan: type[CountReleasePlan]
    counting: CountingCase
    ledger: type[Ledger]
    epsilon: Callable[..., float]
    charge: Callable[..., Sequence[PrivacyEvent]]
    check_delta: Callable[..., None]
    holder_stddev: Callable[..., float]
    quantiser: type[Quantiser]
    masking_holder: type[MaskingHolder]
    enrolment: type[Enrolment]
    masked_sum: type[MaskedSum]
    layout: type[Layout]
    verify_sum: Callable[[SessionRecord, SumRecord], VerifiedSum]


def production(training: TrainingCase | None = None, counting: CountingCase | None = None) -> Subject:
    """The mechanisms of a private run; `training` and `counting` put a real task in the place of the small ones."""
    return Subject(
        stream=SecureStream,
        dpsgd=DPSGD,
        dpsgd_plan=DPSGDPlan,
        check_examples_apart=check_examples_apart,
        training=training if training is not None else small_training(),
        bound=bound_contributions,
        release=release_counts,
        count_plan=CountReleasePlan,
        counting=counting if counting is not None else small_counting(),
        ledger=Ledger,
        epsilon=epsilon,
        charge=campaign_events,
        check_delta=check_population_delta,
        holder_stddev=holder_stddev,
        quantiser=Quantiser,
        masking_holder=MaskingHolder,
        enrolment=Enrolment,
        masked_sum=MaskedSum,
        layout=Layout,
        verify_sum=verify_sum,
    )

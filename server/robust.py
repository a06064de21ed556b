"""Combining updates so that a few dishonest holders cannot move the result far: median, trimmed mean, norm bound.

The coordinator sees every update here; that is the price, and why such a plan must noise them before (`protocol.plan`).
A rule takes no holder's word for its own weight: every holder counts once, however many examples it says it has, and a
round's loss and error are medians over holders. What each rule stands against, with n holders of which k are dishonest:

============  ==============================================================  ======================================
rule          what is combined                                                holds while
============  ==============================================================  ======================================
median        the middle answer, number by number                             k < n/2
trimmed_mean  the mean without the int(trim · n) largest and smallest         k <= int(trim · n)
norm_bound    the mean of updates, longer ones shortened to `update_norm`     always, up to k · update_norm / n a round
============  ==============================================================  ======================================

"Holds" means that each number of the result lies between numbers of honest holders, not that it is the honest mean:
where holders' data differ, the middle answer is another one than the mean, and colluders choose it within that range.

Source: Yin et al. 2018, arXiv:1803.01498 (median, trimmed mean); Sun et al. 2019, arXiv:1911.07963 (norm bound).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg

from protocol.plan import FederationSection
from protocol.records import from_array_record, to_array_record

Arrays = Mapping[str, np.ndarray]


def robust_strategy(federation: FederationSection, **cohort: Any) -> FedAvg:
    """The plan's robust rule as one of Flower's strategies, or as `NormBound`; `cohort` are Flower's own arguments."""
    metrics = {"train_metrics_aggr_fn": median_metrics, "evaluate_metrics_aggr_fn": median_metrics}
    if federation.robust_rule == "median":
        return FedMedian(**metrics, **cohort)
    if federation.robust_rule == "trimmed_mean":
        return FedTrimmedAvg(beta=federation.trim, **metrics, **cohort)
    return NormBound(update_norm=federation.update_norm, **metrics, **cohort)


def median_metrics(records: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """The median over holders of each number they report, all alike: a weight is a claim like any other."""
    answers = [next(iter(record.metric_records.values())) for record in records]
    names = [name for name in answers[0] if name != weighted_by_key]
    return MetricRecord({name: float(np.median([float(answer[name]) for answer in answers])) for name in names})  # type: ignore[arg-type]


def shortened(update: Arrays, norm: float) -> dict[str, np.ndarray]:
    """An update of at most `norm` in L2 over all its arrays together, in float64; a shorter one stays, to rounding."""
    largest = max((float(np.abs(value).max(initial=0.0)) for value in update.values()), default=0.0)
    if largest == 0.0:
        return {name: np.asarray(value, np.float64) for name, value in update.items()}
    # Divided by the largest number first, so that squares of garbage do not overflow.
    unit = {name: np.asarray(value, np.float64) / largest for name, value in update.items()}
    length = float(np.sqrt(sum(np.square(value).sum() for value in unit.values())))
    scale = min(largest, norm / length)
    return {name: value * scale for name, value in unit.items()}


def norm_bounded_mean(answers: Sequence[Arrays], sent: Arrays, norm: float) -> dict[str, np.ndarray]:
    """sent + mean over holders of their updates, each shortened to `norm`; in the numbers' own types.

    With clip(u) = u · min(1, norm / |u|):  w + (1/n) Σ clip(w_i - w)
    """
    start = {name: np.asarray(value, np.float64) for name, value in sent.items()}
    total = {name: np.zeros_like(value) for name, value in start.items()}
    for answer in answers:
        # Halved before the difference, so that it is finite for any finite numbers; then twice the half is shortened.
        half = {name: np.asarray(answer[name], np.float64) / 2 - value / 2 for name, value in start.items()}
        for name, value in shortened(half, norm / 2).items():
            total[name] += 2 * value
    return {name: (value + total[name] / len(answers)).astype(sent[name].dtype) for name, value in start.items()}


class NormBound(FedAvg):
    """`norm_bounded_mean` as a strategy of Flower; it remembers what the round sent, and nothing longer."""

    def __init__(self, *, update_norm: float, **cohort: Any) -> None:
        super().__init__(**cohort)
        self.update_norm = update_norm
        self._sent: dict[str, np.ndarray] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As FedAvg; keeps what is sent, to know the updates by."""
        self._sent = from_array_record(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean of shortened updates on top of what was sent."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        contents = [message.content for message in valid]
        answers = [from_array_record(next(iter(content.array_records.values()))) for content in contents]
        combined = norm_bounded_mean(answers, self._sent, self.update_norm)
        return to_array_record(combined), self.train_metrics_aggr_fn(contents, self.weighted_by_key)

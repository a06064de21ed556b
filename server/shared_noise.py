"""The step that the coordinator takes where holders share the noise: from a masked sum of gradients to new weights.

    g = mean gradient, clipped to `gradient_clip`;    FedAvg: w - lr (g + weight_decay · w);    FedAdam takes -(g + ...)

All of it is post-processing of a sum that has its noise.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from privacy.distributed import clipped_together, mean_gradients
from protocol.errors import ProtocolError
from protocol.messages import TrainReply
from protocol.plan import Plan


def stepped(
    sums: Mapping[str, np.ndarray],
    sent: Mapping[str, np.ndarray],
    plan: Plan,
    *,
    round_number: int,
    survivors: int,
    num_examples: int,
) -> TrainReply:
    """Weights after one step, as the one answer that a strategy combines.

    With FedAvg they are the step of plain SGD at the plan's learning rate. With FedAdam they are one gradient away,
    and the strategy makes Adam's step of it, at its own rate.

    Args:
        sums: Of the parts of all who were left, in parts of the mean gradient.
        sent: Weights of all holders before the step.
        plan: With ``[privacy] noise = "distributed"``.
        round_number: Counted from 1; a round is one step.
        survivors: How many the sum is over.
        num_examples: Public number of examples of those.

    Raises:
        ProtocolError: sums of something else than the weights.
    """
    if {name: value.shape for name, value in sums.items()} != {name: value.shape for name, value in sent.items()}:
        raise ProtocolError("the sum is of other gradients than weights were sent; all must run the same version")
    training = plan.training
    means = mean_gradients(sums, survivors=survivors, holders=len(plan.federation.holders))
    gradients = clipped_together(means, norm=training.gradient_clip)
    rate = 1.0 if plan.federation.strategy == "fedadam" else training.rate_after((round_number - 1) / training.rounds)
    trained = {
        name: (value - rate * (gradients[name] + training.weight_decay * value)).astype(value.dtype)
        for name, value in sent.items()
    }
    return TrainReply(weights=trained, num_examples=num_examples, loss=None)

"""What the coordinator makes of answers: sums of statistics, the mean of updates, mail by recipient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from protocol.errors import ProtocolError, TrainingError
from protocol.masked_messages import LOSS
from protocol.messages import TrainReply
from server.secure_sums import OpenedSum


def mean_update(opened: OpenedSum, sent: Mapping[str, np.ndarray], weights: Mapping[str, int]) -> TrainReply:
    """The weighted mean of the survivors' updates, added to the weights that were sent, as one answer.

        w + sum_i (n_i / max n) update_i / sum_i (n_i / max n),      i over the survivors, max n over all who were asked

    Args:
        opened: Sums of updates, each times its share, and of losses times n_i.
        sent: Weights of all holders before the round.
        weights: Public n_i of all who were asked.

    Raises:
        ProtocolError: sums of something else than the weights.
    """
    arrays = dict(opened.arrays)
    examples = sum(weights[name] for name in opened.survivors)
    loss = float(arrays.pop(LOSS)) / examples if LOSS in arrays else None
    if {name: value.shape for name, value in arrays.items()} != {name: value.shape for name, value in sent.items()}:
        raise ProtocolError("the sum is of other weights than were sent; all must run the same version and plan")
    shares = examples / max(weights[name] for name in opened.cohort)
    trained = {name: (value + arrays[name] / shares).astype(value.dtype) for name, value in sent.items()}
    return TrainReply(weights=trained, num_examples=examples, loss=loss)


def add_up(contributions: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Sum of all holders' arrays, key by key, in the order given.

    Raises:
        TrainingError: holders sent different keys or shapes.
    """
    first = {name: value.shape for name, value in contributions[0].items()}
    for other in contributions[1:]:
        if {name: value.shape for name, value in other.items()} != first:
            raise TrainingError("holders contributed different statistics; all must run the same version and plan")
    return {name: sum((c[name] for c in contributions[1:]), start=contributions[0][name]) for name in first}


def by_recipient(mail: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """Mail by sender and recipient → by recipient and sender, senders in the order of their names."""
    inboxes: dict[str, dict[str, bytes]] = {}
    for sender in sorted(mail):
        for recipient, parcel in mail[sender].items():
            inboxes.setdefault(recipient, {})[sender] = parcel
    return inboxes


def check_weights(reply: TrainReply, sent: Mapping[str, np.ndarray], *, node: int) -> None:
    """A reply brings exactly the weights it was sent, in the same shapes; a strategy would not notice."""
    wanted = {name: value.shape for name, value in sent.items()}
    given = {name: value.shape for name, value in reply.weights.items()}
    if odd := sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name)):
        raise ProtocolError(
            f"holder at node {node} answered with missing, unknown or misshapen weights {odd[:3]}; "
            "all must run the same version and plan"
        )

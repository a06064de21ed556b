"""Flower's strategies, made from the plan, with their state taken out and put back for checkpoints."""

from __future__ import annotations

import numpy as np
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx

from protocol.plan import FederationSection
from protocol.records import WEIGHT
from server.robust import robust_strategy


def make_strategy(federation: FederationSection, *, holders: int) -> FedAvg:
    """The plan's strategy over all holders, or its robust rule; no holder is left out of a round."""
    cohort = {
        "min_train_nodes": holders,
        "min_evaluate_nodes": holders,
        "min_available_nodes": holders,
        "weighted_by_key": WEIGHT,
    }
    if federation.aggregation == "robust":
        return robust_strategy(federation, **cohort)
    if federation.strategy == "fedprox":
        return FedProx(proximal_mu=federation.proximal_mu, **cohort)
    if federation.strategy == "fedadam":
        return FedAdam(eta=federation.server_learning_rate, **cohort)
    return FedAvg(**cohort)


def proximal_mu(federation: FederationSection) -> float:
    """FedProx's mu of the plan, 0 for every other strategy."""
    return federation.proximal_mu if federation.strategy == "fedprox" else 0.0


def strategy_state(strategy: FedAvg) -> dict[str, np.ndarray]:
    """What a strategy carries from round to round (FedAdam's two moments), as named arrays."""
    if not isinstance(strategy, FedAdam):
        return {}
    groups = {"first": strategy.m_t or {}, "second": strategy.v_t or {}}
    return {f"{group}:{name}": np.asarray(value) for group, values in groups.items() for name, value in values.items()}


def restore_strategy(strategy: FedAvg, state: dict[str, np.ndarray]) -> None:
    """Inverse of `strategy_state`."""
    if isinstance(strategy, FedAdam) and state:
        moments: dict[str, dict[str, np.ndarray]] = {"first": {}, "second": {}}
        for key, value in state.items():
            group, name = key.split(":", 1)
            moments[group][name] = value
        strategy.m_t, strategy.v_t = moments["first"], moments["second"]

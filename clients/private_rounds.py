"""Rounds of private training as releases of the ledger: charged as one campaign, each made and stored once.

What is stored of a round are the weights that were sent and the holder's own training state after it, so that a holder
that crashed goes on from where its release left it. The state never leaves; both are post-processing of noised steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
from safetensors.numpy import load, save

from clients.custody import Custody
from clients.state import LocalState
from privacy.plan import DPSGDPlan
from protocol.errors import LedgerError
from protocol.messages import RoundRequest
from protocol.plan import digest_of
from protocol.records import Header

_STATE, _WEIGHT = "state", "weight:"


def campaign_of(run: str, stage: str, mechanism: DPSGDPlan) -> str:
    """One training of one run: what is reserved whole before its first step. Says so where noise is shared."""
    shared = f", noise shared by at least {mechanism.honest} honest holders of a masked sum" if mechanism.honest else ""
    return f"{run}, {stage}{shared}"


def reserve_training(custody: Custody, header: Header, mechanism: DPSGDPlan, *, rounds: int) -> None:
    """Reserve all rounds of a training; the same training again costs nothing more.

    Raises:
        PolicyRefusedError: the mechanism asks for more than the policy allows.
        BudgetExceededError: what is left does not pay for all rounds.
    """
    request = digest_of({"plan": header.plan_hash, "stage": header.stage, "mechanism": mechanism.digest()})
    custody.reserve(campaign_of(header.run, header.stage, mechanism), mechanism, request=request, rounds=rounds)


def serve_round(
    custody: Custody, request: RoundRequest, mechanism: DPSGDPlan, produce: Callable[[], bytes]
) -> tuple[dict[str, np.ndarray], LocalState]:
    """The weights (or a part of a sum of gradients) and the training state of a round: made now, or as stored.

    Raises:
        LedgerError: the round was served for another request, was not reserved, or its stored bytes are damaged.
    """
    campaign = campaign_of(request.header.run, request.header.stage, mechanism)
    blob = custody.serve(campaign, request.round, request=_digest_of_request(request), produce=produce)
    return unpack_round(blob)


def pack_round(weights: Mapping[str, np.ndarray], state: LocalState) -> bytes:
    """Weights and state as one blob."""
    arrays = {f"{_WEIGHT}{name}": np.ascontiguousarray(value) for name, value in weights.items()}
    return save({**arrays, _STATE: np.frombuffer(state.to_bytes(), dtype=np.uint8)})


def unpack_round(blob: bytes) -> tuple[dict[str, np.ndarray], LocalState]:
    """Inverse of `pack_round`."""
    arrays = load(blob)
    if _STATE not in arrays:
        raise LedgerError("a stored round lacks the training state; restore the ledger's folder from a backup")
    state = LocalState.from_bytes(arrays.pop(_STATE).tobytes())
    return {name.removeprefix(_WEIGHT): value for name, value in arrays.items()}, state


def _digest_of_request(request: RoundRequest) -> str:
    """What makes two requests the same: plan, stage, round, FedProx's mu and the very bytes of the weights."""
    weights = hashlib.sha256(save({name: np.ascontiguousarray(value) for name, value in request.weights.items()}))
    return digest_of(
        {
            "plan": request.header.plan_hash,
            "stage": request.header.stage,
            "round": request.round,
            "best_round": request.best_round,
            "mu": request.proximal_mu,
            "weights": weights.hexdigest(),
        }
    )

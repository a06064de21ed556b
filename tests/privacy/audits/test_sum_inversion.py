"""Sums hide whose an input is and not what it is: crafted models find it, noise keeps it, and the audit can fail."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privacy.audits.attacks import inversion_plan
from privacy.audits.inversion import mean_gradients
from privacy.audits.results import AuditResult
from privacy.audits.small_sums import SmallSession
from privacy.audits.subject import production
from privacy.audits.sum_inversion import Sent, audit_sum_inversion, summed_victims
from privacy.randomness import SecureStream
from protocol.errors import ProtocolError


def audited(sent: Sent, *, holders: int, noise: float | None, trials: int = 16) -> AuditResult:
    plan = None if noise is None else inversion_plan(1, noise_multiplier=noise)
    return audit_sum_inversion(
        sent, holders=holders, plan=plan, trials=trials, delta=1e-5, stream=SecureStream(bytes(32)), seed=7
    )


@pytest.mark.parametrize("holders", [2, 5])
def test_what_is_opened_is_the_mean_of_all_updates(holders: int) -> None:
    """As one batch of everybody's inputs would have given, but for the rounding of the masked words."""
    seen = summed_victims("usual", holders=holders, trials=3, plan=None, stream=SecureStream(bytes(32)), seed=1)
    opened = torch.cat([seen.updates[name].flatten(1) for name, _ in seen.model.named_parameters()], dim=1)
    torch.testing.assert_close(opened, mean_gradients(seen.model, seen.x, seen.y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sent", ["trap", "split", "helped"])
@pytest.mark.parametrize("holders", [2, 10])
def test_cheating_finds_the_victim_where_nothing_but_masks_protects(sent: Sent, holders: int) -> None:
    result = audited(sent, holders=holders, noise=None)
    assert result.consistent
    assert result.claimed_epsilon is None
    assert result.figures["recovered"] > 0.5
    assert result.figures["cosine_median"] > 0.99 > result.figures["chance_95"]


@pytest.mark.statistical
@pytest.mark.parametrize("sent", ["usual", "trap", "split", "helped"])
def test_noise_of_each_holder_keeps_cheats_at_chance(sent: Sent) -> None:
    result = audited(sent, holders=3, noise=1.0)
    assert result.consistent
    assert result.figures["recovered"] == 0
    assert result.figures["cosine_median"] <= result.figures["chance_95"]
    assert result.claimed_epsilon is not None


@pytest.mark.parametrize("sent", ["split", "helped"])
def test_next_to_no_noise_would_be_seen(sent: Sent) -> None:
    """The audit can fail: a private update that gives its input away is not at chance."""
    result = audited(sent, holders=2, noise=2e-3)
    assert not result.consistent
    assert result.figures["recovered"] > 0.9


def test_honest_sums_hide_more_the_more_holders_there_are() -> None:
    """The usual attack on the usual model: what is found falls with the number of holders."""
    found = [
        audited("usual", holders=holders, noise=None, trials=32).figures["cosine_median"] for holders in (1, 2, 10)
    ]
    assert found[0] > 0.999 > found[1] > found[2]


def test_helpers_leave_one_update() -> None:
    """What others put in is taken away, so the rest is one holder's update: its input, and nobody else's, is in it."""
    seen = summed_victims("helped", holders=4, trials=3, plan=None, stream=SecureStream(bytes(32)), seed=3)
    opened = torch.cat([seen.updates[name].flatten(1) for name, _ in seen.model.named_parameters()], dim=1)
    assert seen.x.shape == (3, 1, 32)
    torch.testing.assert_close(opened, mean_gradients(seen.model, seen.x, seen.y), rtol=1e-4, atol=1e-5)


def test_only_cheats_without_noise_are_controls() -> None:
    """Nothing is promised of a plain sum, so an honest attack on it may find anything; a cheat must find something."""
    assert "control: " in audited("helped", holders=2, noise=None).name
    assert "control: " not in audited("usual", holders=2, noise=None, trials=6).name
    assert "control: " not in audited("helped", holders=2, noise=1.0, trials=6).name


def test_a_split_is_not_opened() -> None:
    """Two holders that were told of different models give parts that the sum of neither takes."""
    session = SmallSession(production(), 3).enrol()
    order, other = session.order(1), session.order(1, model_hash=b"\x07" * 32)
    masked = production().masked_sum(session.agreement, order, session.people.roster)
    words = np.zeros(4, np.uint32)
    masked.add_contribution("h0", session.contribute("h0", order, words))
    with pytest.raises(ProtocolError, match="contributed to another sum"):
        masked.add_contribution("h1", session.contribute("h1", other, words))

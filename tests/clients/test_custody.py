"""A holder's custody: nothing leaves without policy and budget, and nothing leaves twice."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clients.custody import KEY_FILE, Custody, holder_key
from clients.policy import HolderPolicy
from privacy.plan import CountReleasePlan
from protocol.errors import BudgetExceededError, LedgerError, PolicyRefusedError
from protocol.records import LedgerHead

QUERIES = {"cells": np.arange(24, dtype=np.int64).reshape(2, 3, 4)}


def policy(**changes: object) -> HolderPolicy:
    values = {
        "holder": "north", "population": "people", "period": "2026", "max_epsilon": 2.0, "delta": 1e-6,
        "contributions": 4, "least_noise_multiplier": 0.5, "clip_norm": 1.0,
    }  # fmt: skip
    return HolderPolicy.model_validate(values | changes)


def mechanism(epsilon: float = 1.0, contributions: int = 4) -> CountReleasePlan:
    return CountReleasePlan(contributions=contributions, cells_stddev=1.0).calibrate(epsilon=epsilon, delta=1e-6)


def test_the_same_campaign_gives_the_same_release_at_no_cost(tmp_path: Path) -> None:
    with Custody.at(tmp_path, policy()) as custody:
        first = custody.release_counts("march", lambda: QUERIES, mechanism())
        spent, head = custody.ledger.spent, custody.head()
        again = custody.release_counts("march", lambda: {"cells": QUERIES["cells"] + 1000}, mechanism())
    assert np.array_equal(first.values["cells"], again.values["cells"])
    with Custody.at(tmp_path, policy()) as custody:
        assert (custody.ledger.spent, custody.head()) == (spent, head)
        reopened = custody.release_counts("march", lambda: QUERIES, mechanism())
    assert np.array_equal(first.values["cells"], reopened.values["cells"])
    assert not np.array_equal(first.values["cells"], QUERIES["cells"])


def test_another_mechanism_under_the_same_name_is_refused(tmp_path: Path) -> None:
    with Custody.at(tmp_path, policy()) as custody:
        custody.release_counts("march", lambda: QUERIES, mechanism(1.0))
        with pytest.raises(LedgerError, match="never changed"):
            custody.release_counts("march", lambda: QUERIES, mechanism(0.5))


def test_a_spent_budget_is_refused_and_says_what_is_left(tmp_path: Path) -> None:
    with Custody.at(tmp_path, policy()) as custody:
        custody.check(mechanism(1.5), "march")
        custody.release_counts("march", lambda: QUERIES, mechanism(1.5))
        before = custody.head()
        for ask in (custody.check, lambda plan, name: custody.release_counts(name, lambda: QUERIES, plan)):
            with pytest.raises(BudgetExceededError, match="left: ") as refused:
                ask(mechanism(1.4), "april")
            assert refused.value.requested > refused.value.left
        assert custody.head() == before
        custody.check(mechanism(1.5), "march")  # reserved already: needs no room


def test_the_policy_decides_and_not_the_plan(tmp_path: Path) -> None:
    with Custody.at(tmp_path, policy(least_noise_multiplier=50.0)) as custody:
        with pytest.raises(PolicyRefusedError, match="at least 50"):
            custody.release_counts("march", lambda: QUERIES, mechanism())
        assert custody.ledger.spent == 0
    with Custody.at(tmp_path / "other", policy()) as custody:
        with pytest.raises(PolicyRefusedError, match="at most 4"):
            custody.check(mechanism(1.0, contributions=5), "march")
        with pytest.raises(PolicyRefusedError, match="epsilon"):
            custody.check(mechanism(3.0), "march")


def test_terms_are_fixed_when_the_ledger_is_opened(tmp_path: Path) -> None:
    """A larger cap in the policy does not enlarge a budget that was opened for less."""
    Custody.at(tmp_path, policy()).close()
    with pytest.raises(LedgerError, match="a budget is not changed on the way"):
        Custody.at(tmp_path, policy(max_epsilon=20.0))
    with pytest.raises(LedgerError, match="not of 'south'"):
        Custody.at(tmp_path, policy(holder="south"))


def test_the_key_is_for_its_owner_and_needed(tmp_path: Path) -> None:
    Custody.at(tmp_path, policy()).close()
    key = tmp_path / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.write_bytes(b"not a key")
    with pytest.raises(LedgerError, match="no Ed25519 key"):
        Custody.at(tmp_path, policy())
    key.unlink()
    with pytest.raises(LedgerError):  # a new key is not the ledger's
        Custody.at(tmp_path, policy())


def test_processes_that_begin_at_once_share_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that another process put there meanwhile is taken; a crash before that leaves no half of one."""
    link, path, made = os.link, tmp_path / "holder" / KEY_FILE, []

    def late(draft: Path, place: Path) -> None:
        if not made:
            made.append(Ed25519PrivateKey.generate())
            encoding = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            place.write_bytes(made[0].private_bytes(*encoding))
        link(draft, place)

    monkeypatch.setattr(os, "link", late)
    assert holder_key(path).public_key() == made[0].public_key()
    assert [item.name for item in path.parent.iterdir()] == [KEY_FILE]
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        holder_key(tmp_path / "full" / KEY_FILE)
    assert not list((tmp_path / "full").iterdir())


def test_witnesses_show_a_rollback(tmp_path: Path) -> None:
    with Custody.at(tmp_path, policy()) as custody:
        custody.check_witnesses((custody.head(),))
        custody.release_counts("march", lambda: QUERIES, mechanism())
        seen = custody.head()
        custody.check_witnesses((seen,))
        for wrong in (
            LedgerHead(holder="north", length=seen.length + 1, head=seen.head),
            LedgerHead(holder="north", length=seen.length, head="0" * 64),
        ):
            with pytest.raises(LedgerError):
                custody.check_witnesses((wrong,))


def test_peers_notice_a_rollback_of_each_other(tmp_path: Path) -> None:
    """The coordinator cannot show a peer's ledger shorter than it showed it before, or with another history."""
    peer = LedgerHead(holder="south", length=5, head="a" * 64)
    with Custody.at(tmp_path, policy()) as custody:
        custody.check_witnesses((peer,))
        custody.check_witnesses((peer,))
        for wrong in (
            LedgerHead(holder="south", length=4, head="b" * 64),
            LedgerHead(holder="south", length=5, head="b" * 64),
        ):
            with pytest.raises(LedgerError, match="rolled back"):
                custody.check_witnesses((wrong,))
        custody.check_witnesses((LedgerHead(holder="south", length=6, head="c" * 64),))

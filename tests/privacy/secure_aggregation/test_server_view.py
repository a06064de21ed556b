"""What a coordinator sees of two sets of inputs with one sum has one distribution; a test that broken masks fail.

Three things it has of a holder: the masked words; of a survivor, what is left of them when its own mask is known, as it
is once the sum is open; of one who dropped out and whose words came late, what is left when its masks with all the
others are known. And the differences of these from one sum to the next.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from privacy.secure_aggregation.holder import MaskingHolder
from privacy.secure_aggregation.keys import PairChain
from privacy.secure_aggregation.masks import add_mask, add_masks
from privacy.secure_aggregation.messages import Contribution, Reveal
from tests.masked_sums import Session, SumRun, new_session, plain_sum

LATE, SURVIVORS = "h03", ("h00", "h01", "h02")
WORDS, SUMS = 4096, 6
LEVEL = 1e-4  # of the smallest of all p-values of a view, times their number
Views = dict[str, np.ndarray]


def inputs(kind: str) -> dict[str, np.ndarray]:
    """Two sets of inputs with one sum over the survivors, both far from uniform."""
    total = np.arange(WORDS, dtype=np.uint32) % 10
    zero, large = np.zeros(WORDS, np.uint32), np.full(WORDS, 2**31, np.uint32)
    if kind == "one has all":
        return {"h00": total, "h01": zero, "h02": zero, LATE: zero}
    return {"h00": zero + 3, "h01": large - 3, "h02": total + large, LATE: ~zero}


def views(kind: str, session: Session) -> Views:
    """What a coordinator has after some sums, each with one holder that came too late. Shapes: (SUMS, WORDS)"""
    words = inputs(kind)
    late: dict[str, bytes] = {}

    def hook(sort: str, name: str, message: bytes) -> bytes | None:
        if (sort, name) == ("contribution", LATE):
            late[name] = message
            return None
        return message

    session.hook = hook
    found: dict[str, list[np.ndarray]] = {}
    for _ in range(SUMS):
        run = SumRun(session, session.order(), words)
        run.contribute()
        run.sign()
        run.reveal()
        np.testing.assert_array_equal(run.total(), plain_sum(words, SURVIVORS))
        given = {name: Contribution.from_bytes(blob) for name, blob in {**session.last("contribution"), **late}.items()}
        for name, part in given.items():
            found.setdefault(f"masked {name}", []).append(part.words())
        for name in SURVIVORS:
            rest = given[name].words().copy()
            add_mask(rest, run.masked._own_seed(name), sign=-1)
            pair = run.masked._pair_seed(name, LATE, 0)
            add_mask(rest, pair, sign=-1)  # h03 comes behind all
            found.setdefault(f"opened {name}", []).append(rest)
        seeds = [Reveal.from_bytes(session.last("reveal")[name]).seeds[LATE] for name in SURVIVORS]
        rest = given[LATE].words().copy()
        add_masks(rest, [(seed, 1) for seed in seeds])
        found.setdefault("late, but for its own mask", []).append(rest)
    return {name: np.array(rows) for name, rows in found.items()}


def differences(view: np.ndarray) -> np.ndarray:
    """From one sum to the next."""
    return np.diff(view, axis=0)


def smallest_p(view: np.ndarray) -> float:
    """Chi-square against uniform words: each byte, each place among 16 by its highest bits, neighbours; times 37."""
    raw = np.ascontiguousarray(view, "<u4").view(np.uint8).reshape(-1, 4)
    counts = [np.bincount(raw[:, place], minlength=256) for place in range(4)]
    high, low = view >> 28, view & 15
    for nibble in (high, low):
        counts += [np.bincount(nibble[:, place::16].ravel(), minlength=16) for place in range(16)]
    counts.append(np.bincount((high[:, :-1] * 16 + high[:, 1:]).ravel(), minlength=256))
    return min(1.0, len(counts) * min(float(stats.chisquare(count).pvalue) for count in counts))


def same_p(one: np.ndarray, other: np.ndarray) -> float:
    """Chi-square of two samples: the highest bytes have one distribution, whatever it is."""
    table = np.array([np.bincount((view >> 24).ravel(), minlength=256) for view in (one, other)])
    table = table[:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(stats.chi2.sf(((table - expected) ** 2 / expected).sum(), table.shape[1] - 1))


def four(seed: bytes) -> Session:
    return new_session(4, seed=seed)


@pytest.mark.slow
@pytest.mark.statistical
def test_views_of_two_inputs_with_one_sum_have_one_distribution() -> None:
    """All words that the coordinator has are uniform, by byte and by place, in both worlds and between sums."""
    one, other = views("one has all", four(b"one")), views("spread", four(b"other"))
    assert one.keys() == other.keys()
    assert len(one) == 4 + 3 + 1
    for name, view in one.items():
        assert min(smallest_p(view), smallest_p(other[name])) > LEVEL, name
        assert min(smallest_p(differences(view)), smallest_p(differences(other[name]))) > LEVEL, name
        assert same_p(view, other[name]) > LEVEL, name
    opened = plain_sum({name: one[f"opened {name}"][0] for name in SURVIVORS}, SURVIVORS)  # together they say the sum
    np.testing.assert_array_equal(opened, plain_sum(inputs("one has all"), SURVIVORS))


def no_own_mask(patch: pytest.MonkeyPatch) -> None:
    """The vector is masked for pairs only."""
    honest = MaskingHolder._masked

    def masked(self: MaskingHolder, words: np.ndarray, seeds: dict[str, bytes]) -> bytes:
        plain = np.frombuffer(honest(self, words, seeds), "<u4").copy()
        add_mask(plain, seeds[self.name], sign=-1)
        return plain.tobytes()

    patch.setattr(MaskingHolder, "_masked", masked)


def own_mask_used_again(patch: pytest.MonkeyPatch) -> None:
    """Every sum has the same own mask."""
    patch.setattr(MaskingHolder, "_own_seed", lambda self: self.name.encode().ljust(32))


def pair_mask_used_again(patch: pytest.MonkeyPatch) -> None:
    """Keys of a pair do not move on, and know no sum."""
    patch.setattr(PairChain, "advance", lambda self, sequence: None)
    seed = PairChain.seed
    patch.setattr(PairChain, "seed", lambda self, context: seed(self, b""))


def no_pair_mask(patch: pytest.MonkeyPatch) -> None:
    """The mask of a pair is known to everybody."""
    patch.setattr(PairChain, "seed", lambda self, context: bytes(32))


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize(
    ("broken", "view", "between"),
    [
        (no_own_mask, "late, but for its own mask", False),
        (own_mask_used_again, "late, but for its own mask", True),
        (pair_mask_used_again, "opened h00", True),
        (no_pair_mask, "opened h00", True),
    ],
)
def test_broken_masks_are_found(
    broken: Callable[[pytest.MonkeyPatch], None], view: str, between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing own mask, and a mask that is used twice, are rejected by the same statistics."""
    honest = views("one has all", four(b"one"))[view]
    broken(monkeypatch)
    session = four(b"one")
    if broken is no_own_mask:
        monkeypatch.setattr(np.testing, "assert_array_equal", lambda *given: None)  # its sums are wrong too
    seen = views("one has all", session)[view]
    look = differences if between else np.array
    assert smallest_p(look(honest)) > LEVEL
    assert smallest_p(look(seen)) < 1e-12

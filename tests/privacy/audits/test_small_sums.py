"""The sums that checks are tried on are real ones, and what their coordinator is said to know is what it knows."""

from __future__ import annotations

import random

import numpy as np
import pytest

from privacy.audits.checks.masked_sums import Counting, reseeding_repeats_nothing
from privacy.audits.small_sums import SmallSession, plain_sum
from privacy.audits.subject import Subject, production
from privacy.randomness import SecureStream
from privacy.secure_aggregation.masks import mask_of
from privacy.secure_aggregation.messages import seed_digest
from privacy.secure_aggregation.transcript import verify_sum
from protocol.errors import TrainingError


@pytest.fixture(scope="module")
def subject() -> Subject:
    return production()


def test_a_late_part_is_kept_and_not_in_the_sum(subject: Subject) -> None:
    session = SmallSession(subject, 5).enrol()
    inputs = session.inputs(16)
    seen = session.carry_out(1, inputs, late=("h1",))
    assert seen.survivors.dropped == ("h1",)
    assert seen.given.keys() == set(session.names)
    assert np.array_equal(seen.total, plain_sum(inputs, ("h0", "h2", "h3", "h4")))


def test_known_seeds_are_those_that_were_masked_with(subject: Subject) -> None:
    """Own seeds of all who are left, and seeds of their pairs with the late one, by the digests in what they sent."""
    session = SmallSession(subject, 5).enrol()
    seen = session.carry_out(1, session.inputs(4), late=("h1",))
    left = seen.survivors.left
    assert seen.seeds.keys() == {(name, name) for name in left} | {(name, "h1") for name in left}
    assert all(seed_digest(seed) == seen.given[name].digests[other] for (name, other), seed in seen.seeds.items())


def test_what_double_masking_is_for(subject: Subject) -> None:
    """Without the masks of its pairs, which the coordinator knows, a late part is still hidden by its own mask."""
    session = SmallSession(subject, 3).enrol()
    with pytest.raises(TrainingError, match="are needed"):
        session.carry_out(1, session.inputs(4), late=("h2",))  # of three, all must be left
    session = SmallSession(subject, 4).enrol()
    inputs = session.inputs(4)
    seen = session.carry_out(1, inputs, late=("h3",))
    words = seen.given["h3"].words()
    for name in seen.survivors.left:
        words = words + mask_of(seen.seeds[name, "h3"], 4)
    assert not np.array_equal(words, inputs["h3"])
    assert not np.any(words == inputs["h3"])


def test_its_records_are_rechecked_like_those_of_a_run(subject: Subject) -> None:
    session = SmallSession(subject, 4).enrol()
    seen = session.carry_out(1, session.inputs(4), late=("h0",))
    assert np.array_equal(verify_sum(session.record, seen.record).words, seen.total)


def test_drawn_bytes_are_counted() -> None:
    stream = Counting(SecureStream(bytes(32)))
    drawn = stream.random_bytes(40) + stream.uint64(2).tobytes()
    stream.forget()
    assert stream.drawn == 56
    assert drawn == SecureStream(bytes(32)).random_bytes(56)


def test_generators_of_a_run_are_left_as_they_were(subject: Subject) -> None:
    """The check sets Python's and numpy's generators to a seed; a run that it comes before must not notice."""
    states = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index] # noqa: NPY002
    assert reseeding_repeats_nothing.run(subject).passed
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index] # noqa: NPY002

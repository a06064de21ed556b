"""The asker learns who of its own the other has, or how many, and neither learns more."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.matching import Answer, Answerer, Asker, MatchRules, QuestionBook
from protocol.errors import PrivacyParameterError, ProtocolError, RefusedError

RULES = MatchRules(question_size=12, answer_size=16)
names = st.lists(st.binary(min_size=1, max_size=6), max_size=10, unique=True)


@settings(deadline=None, max_examples=20)
@given(mine=names, theirs=names)
def test_matches_are_those_of_the_plain_sets(mine: list[bytes], theirs: list[bytes]) -> None:
    asker, answerer = Asker(mine, run=b"1", rules=RULES), Answerer(theirs, run=b"1", rules=RULES)
    answer = answerer.answer(asker.question(), reveal="bits")
    assert asker.matches(answer).tolist() == [name in set(theirs) for name in mine]
    assert asker.cardinality(answer) == len(set(mine) & set(theirs))


def test_cardinality_tells_how_many_and_not_who() -> None:
    mine, theirs = [bytes([number]) for number in range(10)], [bytes([number]) for number in range(5)]
    guesses = []
    for _ in range(6):
        asker, answerer = Asker(mine, run=b"1", rules=RULES), Answerer(theirs, run=b"1", rules=RULES)
        answer = answerer.answer(asker.question(), reveal="cardinality")
        assert asker.cardinality(answer) == 5
        guesses.append(tuple(asker.matches(answer)))
    assert len(set(guesses)) > 1  # positions mean nothing: all six agree by chance once in 10^13


def test_sizes_do_not_depend_on_the_sets_and_nothing_repeats() -> None:
    """Padded to public sizes; under new keys the same identities look unrelated, in any order."""
    few, many = (Asker([bytes([n]) for n in range(size)], run=b"1", rules=RULES).question() for size in (0, 12))
    assert few.shape == many.shape == (12, 32)
    again = Asker([bytes([n]) for n in range(12)], run=b"1", rules=RULES).question()
    assert not {row.tobytes() for row in again} & {row.tobytes() for row in many}


def test_sets_of_two_runs_cannot_be_compared() -> None:
    asker, answerer = Asker([b"x"], run=b"1", rules=RULES), Answerer([b"x"], run=b"2", rules=RULES)
    assert not asker.matches(answerer.answer(asker.question(), reveal="bits")).any()


def test_questions_of_another_size_or_that_repeat_are_refused() -> None:
    question = Asker([b"x", b"y"], run=b"1", rules=RULES).question()
    doubled = question.copy()
    doubled[1] = doubled[0]
    zero = question.copy()
    zero[0] = 255  # larger than the prime
    for wrong, words in (
        (question[:-1], "agreed size"),
        (question.astype(np.int64), "agreed size"),
        (doubled, "repeats"),
        (zero, "no point"),
    ):
        with pytest.raises(ProtocolError, match=words):
            Answerer([b"x"], run=b"1", rules=RULES).answer(wrong, reveal="bits")


def test_answers_of_another_size_are_refused() -> None:
    asker = Asker([b"x"], run=b"1", rules=RULES)
    answer = Answerer([b"x"], run=b"1", rules=RULES).answer(asker.question(), reveal="bits")
    for wrong in (Answer(answer.doubled[1:], answer.own), Answer(answer.doubled, answer.own[1:])):
        with pytest.raises(ProtocolError, match="agreed size"):
            asker.matches(wrong)


def test_one_key_answers_one_question() -> None:
    answerer = Answerer([b"x"], run=b"1", rules=RULES)
    answerer.answer(Asker([b"x"], run=b"1", rules=RULES).question(), reveal="bits")
    with pytest.raises(RefusedError, match="keys of its own"):
        answerer.answer(Asker([b"y"], run=b"1", rules=RULES).question(), reveal="bits")


@pytest.mark.parametrize("side", [Asker, Answerer])
def test_identities_twice_or_too_many_are_refused_and_not_shown(side: type) -> None:
    with pytest.raises(PrivacyParameterError, match="twice") as refused:
        side([b"secret", b"secret"], run=b"1", rules=RULES)
    assert "secret" not in str(refused.value)
    with pytest.raises(PrivacyParameterError, match="17 identities do not fit"):
        side([bytes([number]) for number in range(17)], run=b"1", rules=RULES)


def test_questions_are_counted_and_limited() -> None:
    book = QuestionBook(2, {"north": 1})
    book.charge("north")
    with pytest.raises(RefusedError, match="asked 2 questions"):
        book.charge("north")
    book.charge("east")
    assert book.asked == {"north": 2, "east": 1}


def test_a_restarted_asker_goes_on_with_its_question() -> None:
    """Key, padding and order follow from the question's own secret."""
    first, second = (Asker([b"x", b"y"], run=b"1", rules=RULES, secret=bytes(32)) for _ in range(2))
    assert np.array_equal(first.question(), second.question())
    answer = Answerer([b"y"], run=b"1", rules=RULES).answer(first.question(), reveal="bits")
    assert second.matches(answer).tolist() == [False, True]
    other = Asker([b"x", b"y"], run=b"1", rules=RULES, secret=b"\1" * 32).question()
    assert not {row.tobytes() for row in other} & {row.tobytes() for row in first.question()}

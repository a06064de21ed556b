"""Whether those who look new, or gone, at one operator are known at another: two questions to every other operator.

===========  ===============================================  ==========================================
question     an operator asks about its                       the other answers about its persons with
===========  ===============================================  ==========================================
``new``      migrants without a call in week 1, and one in 2  a call in week 1
``left``     those of them without a call in the last week    a call in the last week
===========  ===============================================  ==========================================

Whoever is found by the first is no newcomer to the city but came from another operator, or has a second number. The
protocol, and what it tells whom, is that of `privacy.matching`; identities are tokens that subscribers have at every
operator, say of a national number. Two questions of one exchange can be combined by the asker.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from clients.policy import PushPolicy
from clients.push_mail import pack_arrays, unpack_arrays
from integration.exchange import QUESTIONS
from integration.people import NEW, NONE
from privacy.matching import Answer, Answerer, Asker, MatchRules, QuestionBook
from privacy.sealed import SealingKey
from protocol.errors import DataError, ProtocolError
from protocol.records import Header

ABOUT = ("new", "left")
SIZES = MatchRules(question_size=512, answer_size=8192, questions=len(ABOUT))
"""Sizes for a small study; a larger one must agree on larger ones."""


class PersonMatching:
    """One operator's part in the matching: what it asks, answers, and has learned.

    Args:
        name: Its name.
        people: Its subscribers, with a column identity.
        weeks: Weeks of the study.
        key: Keys of questions are derived from it, so that a restarted operator can read the answers.
        rules: Public sizes, the same at every operator.
        policy: What it answers.
        book: Questions that others have asked before in this period.

    Raises:
        DataError: subscribers have no identities.
        PolicyRefusedError: the policy does not let others learn who is here too.
    """

    def __init__(
        self, name: str, people: pd.DataFrame, *, weeks: int, key: SealingKey, rules: MatchRules = SIZES,
        policy: PushPolicy, book: QuestionBook | None = None,
    ) -> None:  # fmt: skip
        if "identity" not in people.columns:
            raise DataError("subscribers have no identities to be matched by", way_out="name the column 'identity'")
        policy.check_matching("bits")
        self.name, self._people, self._key, self._rules = name, people, key, rules
        self._book = book or QuestionBook(rules.questions)
        self._last = weeks
        self._answers: dict[str, bytes] = {}
        self._elsewhere: dict[str, set[str]] = {about: set() for about in ABOUT}

    def question(self, header: Header, other: str) -> bytes:
        """Both questions to another operator; the same when asked for again."""
        return pack_arrays({about: self._asker(header, other, about).question() for about in ABOUT})

    def answer(self, header: Header, asker: str, content: bytes) -> bytes:
        """Answers to both questions of another operator; the same when asked for again.

        Raises:
            RefusedError: it has asked as often as it may.
            ProtocolError: questions of another size, or that are none.
        """
        if asker not in self._answers:
            questions = unpack_arrays(content, ABOUT)
            arrays = {}
            for about in ABOUT:
                self._book.charge(asker)
                side = Answerer(self._identities(self._known(about)), run=_run(header, asker, self.name, about),
                                rules=self._rules)  # fmt: skip
                answered = side.answer(questions[about], reveal="bits")
                arrays |= {f"{about}.doubled": answered.doubled, f"{about}.own": answered.own}
            self._answers[asker] = pack_arrays(arrays)
        return self._answers[asker]

    def learn(self, header: Header, other: str, content: bytes) -> None:
        """Take in another operator's answers.

        Raises:
            ProtocolError: answers of another size, or that are none.
        """
        arrays = unpack_arrays(content, tuple(f"{about}.{part}" for about in ABOUT for part in ("doubled", "own")))
        for about in ABOUT:
            answer = Answer(arrays[f"{about}.doubled"], arrays[f"{about}.own"])
            found = self._asker(header, other, about).matches(answer)
            asked = self._identities(self._asked(about))
            self._elsewhere[about] |= {name.decode() for name, hit in zip(asked, found, strict=True) if hit}

    def corrected(self) -> pd.DataFrame:
        """The subscribers, with those who came from another operator in no group."""
        known = self._people["identity"].isin(self._elsewhere["new"]) & (self._people["group"] == NEW)
        return self._people.assign(group=self._people["group"].mask(known, NONE))

    def still_there(self) -> np.ndarray:
        """Sorted codes of persons who are silent here in the last week and have calls at another operator."""
        return np.sort(self._people.loc[self._people["identity"].isin(self._elsewhere["left"]), "person"].to_numpy())

    def _asker(self, header: Header, other: str, about: str) -> Asker:
        run = _run(header, self.name, other, about)
        return Asker(self._identities(self._asked(about)), run=run, rules=self._rules, secret=self._key.derived(run))

    def _asked(self, about: str) -> np.ndarray:
        new = (self._people["group"] == NEW).to_numpy()
        return new if about == "new" else new & ~self._called(self._last)

    def _known(self, about: str) -> np.ndarray:
        return self._called(1 if about == "new" else self._last)

    def _called(self, week: int) -> np.ndarray:
        return (self._people["weeks"].to_numpy() >> (week - 1) & 1).astype(bool)

    def _identities(self, chosen: np.ndarray) -> list[bytes]:
        """Distinct identities of these rows, sorted, as bytes."""
        return [str(name).encode() for name in sorted(set(self._people.loc[chosen, "identity"].dropna()))]


def _run(header: Header, asker: str, answerer: str, about: str) -> bytes:
    """What a question belongs to."""
    return json.dumps([header.run, header.plan_hash, header.stage, asker, answerer, about]).encode()


def check_asked(inbox: dict[str, bytes]) -> dict[str, bytes]:
    """The questions that have arrived.

    Raises:
        ProtocolError: none has.
    """
    if not inbox:
        raise ProtocolError(f"there are no questions to answer; carry out the phase '{QUESTIONS}' first")
    return inbox

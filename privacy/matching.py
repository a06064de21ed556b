"""Which of my persons are also among yours: private set intersection by Diffie-Hellman, for one asking holder.

"New" and "left" are statements about persons, telephone operators see numbers. The asker learns, for each of its own
identities, whether the answerer has it (`matches`), or only how many (`cardinality`)::

    asker, answerer = Asker(candidates, run=run, rules=rules), Answerer(active, run=run, rules=rules)
    answer = answerer.answer(asker.question(), reveal="bits")
    matched = asker.matches(answer)          # bool, one for each candidate

With H the hash to the curve P-256 (`privacy.hash_to_curve`) and secrets a, b drawn for this run alone

    question = {a H(x)}, shuffled     answer = {b a H(x)} in that order and {b H(y)}, shuffled
    match:  b a H(x) = a (b H(y))

All elements are x-coordinates: k P and -k P share theirs, so a point can be restored with either sign, and OpenSSL's
ECDH on P-256 (constant time, prime order, points off the curve refused) is the only arithmetic with secrets.

**Promise**: under the decisional Diffie-Hellman assumption in the random-oracle model, against parties that follow the
protocol, the answerer learns the padded size of the question and nothing else, the asker its matches and the padded
size of the answerer's set. Sets are padded with random points to a public size, and shuffled. Keys and the domain of
the hash belong to one run: sets of two runs cannot be compared.

**What leaks anyway**: the matches are personal data at the asker: that this person is, or was, a customer of the
answerer. Cardinality alone tells as much about a set of one. And **a malicious asker can put any identity into its
question**: enumerate a list of national numbers and learn who of them is the answerer's customer. What stands against
it: limits on the size of a question and on questions per period (`QuestionBook`, kept by the answerer), identities that
are hard to guess, and a contract; identities signed by their issuer would, and are not done here. An asker that repeats
elements learns nothing more and is refused. An answerer can lie: claim to have nobody, or more than it has.

Source: Meadows 1986; Huberman, Franklin, Hogg 1999; De Cristofaro, Gasti, Tsudik 2012 (cardinality by shuffling);
RFC 9380 (hash).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field

from privacy.hash_to_curve import hash_to_point
from protocol.errors import PrivacyParameterError, ProtocolError, RefusedError
from protocol.plan import FrozenConfig

Reveal = Literal["bits", "cardinality"]
ELEMENT_BYTES = 32
_CURVE = ec.SECP256R1()
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_EVEN = b"\x02"  # the point with the even ordinate of its two


class MatchRules(FrozenConfig):
    """Public sizes: what questions and answers are padded to, and how often may be asked."""

    question_size: int = Field(ge=1, le=10**7, description="elements of a question, padding included")
    answer_size: int = Field(ge=1, le=10**7, description="elements of the answerer's set, padding included")
    questions: int = Field(default=2, ge=1, description="questions that one holder may ask in a period")


@dataclass(frozen=True, eq=False)
class Answer:
    """What comes back to the asker.

    Shapes: doubled (question_size, 32) uint8, own (answer_size, 32) uint8.
    """

    doubled: np.ndarray
    own: np.ndarray


class Asker:
    """The side that wants to know, for one question of one run.

    Args:
        identities: Its candidates; distinct.
        run: Names the run and the question; both sides must use the same.
        rules: Public sizes.
        secret: What key, padding and order are derived from, 32 bytes that only this holder has and that belong to this
            question alone; a holder that was restarted can then go on with its question. Left out, they are drawn.

    Raises:
        PrivacyParameterError: an identity twice, or more than fit a question.
    """

    def __init__(
        self, identities: Sequence[bytes], *, run: bytes, rules: MatchRules, secret: bytes | None = None
    ) -> None:
        self._rules = rules
        draws = _Draws(secret)
        self._key = draws.key()
        hashed = _hashed(identities, run, size=rules.question_size, draws=draws)
        self._order = draws.order(len(hashed))
        self._count = len(identities)
        self._question = _raised(self._key, hashed[self._order])

    def question(self) -> np.ndarray:
        """Blinded candidates and padding, shuffled; (question_size, 32) uint8."""
        return self._question.copy()

    def matches(self, answer: Answer) -> np.ndarray:
        """For each candidate, in the order given, whether the answerer has it; bool, (n,).

        Raises:
            ProtocolError: an answer of another size, or with elements that are no points.
        """
        return self._found(answer)[np.argsort(self._order)][: self._count]

    def cardinality(self, answer: Answer) -> int:
        """How many of the candidates the answerer has; all that an answer to "cardinality" tells.

        Raises:
            ProtocolError: see `matches`.
        """
        return int(self._found(answer).sum())

    def _found(self, answer: Answer) -> np.ndarray:
        _check_size(answer.doubled, self._rules.question_size, "an answer")
        _check_size(answer.own, self._rules.answer_size, "an answer")
        theirs = {element.tobytes() for element in _raised(self._key, answer.own)}
        return np.array([element.tobytes() in theirs for element in answer.doubled], dtype=bool)


class Answerer:
    """The side that has a set, for one question of one run.

    Args:
        identities: Its set; distinct.
        run: As the asker's.
        rules: Public sizes.

    Raises:
        PrivacyParameterError: an identity twice, or more than fit an answer.
    """

    def __init__(self, identities: Sequence[bytes], *, run: bytes, rules: MatchRules) -> None:
        self._rules, self._draws = rules, _Draws(None)
        self._key = self._draws.key()
        hashed = _hashed(identities, run, size=rules.answer_size, draws=self._draws)
        self._own = _raised(self._key, hashed[self._draws.order(len(hashed))])
        self._answered = False

    def answer(self, question: np.ndarray, *, reveal: Reveal) -> Answer:
        """Blind the question once more and add the own set.

        With "cardinality" the question comes back shuffled, so that the asker cannot tell whose its matches are.

        Raises:
            ProtocolError: a question of another size, with repeated elements, or with elements that are no points.
            RefusedError: a second question under one key, whose answers could be compared with the first's.
        """
        if self._answered:
            raise RefusedError("this key has answered a question already; answer each with keys of its own")
        _check_size(question, self._rules.question_size, "a question")
        if len({element.tobytes() for element in question}) != len(question):
            raise ProtocolError("a question repeats elements; ask for each identity once")
        self._answered = True
        doubled = _raised(self._key, question)
        return Answer(doubled if reveal == "bits" else doubled[self._draws.order(len(doubled))], self._own.copy())


class QuestionBook:
    """How often each holder has asked in this period; the answerer's, to be kept with its ledger.

    Args:
        most: Questions one holder may ask.
        asked: Those it has asked before.
    """

    def __init__(self, most: int, asked: dict[str, int] | None = None) -> None:
        self._most, self.asked = most, dict(asked or {})

    def charge(self, holder: str) -> None:
        """Count a question before it is answered.

        Raises:
            RefusedError: the holder has asked as often as it may.
        """
        if self.asked.get(holder, 0) >= self._most:
            raise RefusedError(
                f"holder '{holder}' has asked {self._most} questions in this period, the most it may; ask again in the "
                "next, or agree on more"
            )
        self.asked[holder] = self.asked.get(holder, 0) + 1


class _Draws:
    """Key, padding and orders, from SHAKE-256 of a secret; each call gets bytes of its own."""

    def __init__(self, secret: bytes | None) -> None:
        if secret is not None and len(secret) != 32:
            raise PrivacyParameterError(f"the secret of a question has 32 bytes, got {len(secret)}; derive such a one")
        self._secret, self._calls = secret or secrets.token_bytes(32), 0

    def key(self) -> ec.EllipticCurvePrivateKey:
        """A scalar in [1, order), off from uniform by less than 2^-128."""
        return ec.derive_private_key(int.from_bytes(self.bytes(48)) % (_ORDER - 1) + 1, _CURVE)

    def order(self, size: int) -> np.ndarray:
        """A random order: that of random 128-bit numbers."""
        words = np.frombuffer(self.bytes(16 * size), np.uint64).reshape(size, 2)
        return np.lexsort((words[:, 0], words[:, 1]))

    def bytes(self, length: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(b"migrafed matching draws " + self._secret + self._calls.to_bytes(8)).digest(length)


def _hashed(identities: Sequence[bytes], run: bytes, *, size: int, draws: _Draws) -> np.ndarray:
    """Abscissae of hashed identities and, behind them, of random padding: (size, 32) uint8."""
    if len(set(identities)) != len(identities):
        raise PrivacyParameterError("an identity is there twice; give each person once")
    if len(identities) > size:
        raise PrivacyParameterError(
            f"{len(identities):,} identities do not fit the public size of {size:,}; agree on a larger one"
        )
    domain = b"migrafed matching 1 " + run
    abscissae = [hash_to_point(name, domain)[0] for name in identities]
    # Random multiples of the generator: as good as hashes to anybody who does not know the factor, and cheaper.
    abscissae += [draws.key().public_key().public_numbers().x for _ in range(size - len(identities))]
    joined = b"".join(x.to_bytes(ELEMENT_BYTES) for x in abscissae)
    return np.frombuffer(joined, np.uint8).reshape(-1, ELEMENT_BYTES)


def _raised(key: ec.EllipticCurvePrivateKey, elements: np.ndarray) -> np.ndarray:
    """Abscissae of the key times each point; (n, 32) uint8."""
    try:
        raised = [key.exchange(ec.ECDH(), _point(element)) for element in elements]
    except ValueError:
        raise ProtocolError("an element is no point of the curve; both sides must run the same version") from None
    return np.frombuffer(b"".join(raised), np.uint8).reshape(-1, ELEMENT_BYTES)


def _point(element: np.ndarray) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, _EVEN + element.tobytes())


def _check_size(elements: np.ndarray, size: int, what: str) -> None:
    if elements.shape != (size, ELEMENT_BYTES) or elements.dtype != np.uint8:
        raise ProtocolError(f"{what} has shape {elements.shape}, the agreed size is {size:,}; use the same rules")

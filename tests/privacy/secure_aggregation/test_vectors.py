"""The vectors that other versions and other implementations compare with are what this code gives."""

from __future__ import annotations

import hashlib
import hmac
import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from Crypto.Cipher import AES

from privacy.secure_aggregation.messages import Contribution, Reveal
from privacy.secure_aggregation.shamir import PRIME
from tests.sum_vectors import FILE, every_vector, text

STORED: list[dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
BY_NAME = {vector["name"]: vector for vector in STORED}


def test_the_code_gives_every_vector() -> None:
    """If this fails and the change of the protocol was meant: name a new version in `wire`, make the file anew."""
    made = json.loads(text())
    assert [vector["name"] for vector in made] == [vector["name"] for vector in STORED]
    for vector, stored in zip(made, STORED, strict=True):
        assert vector == stored, vector["name"]
    assert text() == FILE.read_text(encoding="utf-8")


def test_there_are_enough_each_with_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(STORED) >= 20
    assert len({json.dumps(vector["gives"]) for vector in STORED}) == len(STORED)


def test_no_vector_needs_chance() -> None:
    assert every_vector() == every_vector()


@pytest.mark.parametrize("name", [name for name in BY_NAME if name.startswith("sum of")])
def test_the_words_of_a_sum_are_the_plain_sum_over_the_survivors(name: str) -> None:
    """And nobody's masked words are its own: in the file, not in the code."""
    vector = BY_NAME[name]
    inputs, left = vector["given"]["inputs"], vector["gives"]["survivors"]
    assert sorted({*left, *vector["given"]["do not contribute"]}) == sorted(inputs)
    total = np.array([inputs[holder] for holder in left], dtype=np.uint64).sum(axis=0) % 2**32
    assert vector["gives"]["words"] == total.tolist()


def test_two_sums_over_the_same_words_look_different() -> None:
    vector = BY_NAME["two sums of one session over the same words"]
    assert vector["gives"]["words"][0] == vector["gives"]["words"][1]
    masked = [blob for _, blob in vector["gives"]["contributions"]]
    assert len(set(masked)) == len(masked) == 6


def test_masks_in_the_file_are_those_of_another_aes() -> None:
    given, gives = (BY_NAME["mask, words 16,380 to 16,387"][part] for part in ("given", "gives"))
    stream = AES.new(bytes.fromhex(given["seed"]), AES.MODE_CTR, nonce=b"", initial_value=given["start"] // 4)
    assert np.frombuffer(stream.encrypt(bytes(4 * given["count"])), dtype="<u4").tolist() == gives["words"]


def test_expansions_in_the_file_are_one_hmac() -> None:
    given, gives = (BY_NAME["expansion"][part] for part in ("given", "gives"))
    key, info = bytes.fromhex(given["key"]), bytes.fromhex(given["info"])
    assert hmac.digest(key, info + b"\x01", hashlib.sha256).hex() == gives["key"]


@pytest.mark.parametrize("count", [2, 3])
def test_a_sum_opens_by_hand_from_the_bytes_of_the_file(count: int) -> None:
    """Masked words minus own masks, whose seeds are Lagrange's sum over the shares revealed; masks of pairs cancel."""
    vector = BY_NAME[f"sum of {count} holders, 0 do not contribute, 0 do not reveal"]
    sent = {(kind, name): bytes.fromhex(blob) for kind, name, blob in vector["gives"]["messages"]}
    names = vector["gives"]["survivors"]
    total = np.zeros(6, dtype=np.uint64)
    for name in names:
        words = Contribution.from_bytes(sent["contribution", name]).words().astype(np.uint64)
        assert words.tolist() != vector["given"]["inputs"][name]
        total += words
        shares = [Reveal.from_bytes(sent["reveal", giver]).shares[name] for giver in names]
        seed = 0
        for x, share in enumerate(shares, start=1):
            weight = Fraction(1)
            for other in range(1, count + 1):
                weight *= Fraction(other, other - x) if other != x else 1
            seed += int(weight) * int.from_bytes(share, "big")  # whole numbers for places 1 to 3
        stream = AES.new((seed % PRIME).to_bytes(32, "big"), AES.MODE_CTR, nonce=b"", initial_value=0)
        total -= np.frombuffer(stream.encrypt(bytes(24)), dtype="<u4").astype(np.uint64)
    assert (total % 2**32).tolist() == vector["gives"]["words"]

"""Shares over a prime field, against Lagrange with fractions; fewer than the threshold say nothing, exactly so."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from privacy.randomness import SecureStream
from privacy.secure_aggregation import shamir
from privacy.secure_aggregation.shamir import PRIME, SHARE_BYTES, element, secret_from, shares_of
from protocol.errors import ProtocolError

SECRETS = st.binary(min_size=32, max_size=32)


def constant_term(shares: Mapping[int, int], prime: int) -> int:
    """f(0) of the polynomial through the shares: Lagrange's weights as fractions, reduced at the end."""
    total = 0
    for place, value in shares.items():
        weight = Fraction(1)
        for other in shares:
            if other != place:
                weight *= Fraction(-other, place - other)
        total += value * weight.numerator * pow(weight.denominator, prime - 2, prime)
    return total % prime


def horner(coefficients: Sequence[int], place: int, prime: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * place + coefficient) % prime
    return value


@pytest.fixture
def small_field(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """For tests that put a small prime in place: weights that are remembered are of one prime."""
    shamir._weights.cache_clear()
    yield monkeypatch
    shamir._weights.cache_clear()


def test_the_field_is_that_of_the_smallest_prime_above_2_256() -> None:
    """Strong pseudo-prime to the first twelve primes, and nothing between 2^256 and it is."""

    def passes(number: int, base: int) -> bool:
        odd, halvings = number - 1, 0
        while odd % 2 == 0:
            odd, halvings = odd // 2, halvings + 1
        power = pow(base, odd, number)
        if power in (1, number - 1):
            return True
        return any((power := power * power % number) == number - 1 for _ in range(halvings - 1))

    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    assert all(passes(PRIME, base) for base in bases)
    assert not any(all(passes(number, base) for base in bases) for number in range(2**256 + 1, PRIME, 2))


def test_the_worked_example_of_a_small_field(small_field: pytest.MonkeyPatch) -> None:
    """f(x) = 1234 + 166 x + 94 x^2 modulo 1613, the example known from Wikipedia: any three of six shares give 1234."""
    small_field.setattr(shamir, "PRIME", 1613)
    small_field.setattr(shamir, "_coefficients", lambda count, stream: [166, 94][:count])
    expected = {1: 1494, 2: 329, 3: 965, 4: 176, 5: 1188, 6: 775}
    secret = (1234).to_bytes(32, "big")
    given_out = shares_of([secret], threshold=3, places=range(1, 7), stream=SecureStream(bytes(32)))
    assert {place: int.from_bytes(share, "big") for place, [share] in given_out.items()} == expected
    for chosen in itertools.combinations(expected, 3):
        assert secret_from({place: given_out[place][0] for place in chosen}, threshold=3) == secret


@given(data=st.data(), secrets=st.lists(SECRETS, min_size=1, max_size=3), count=st.integers(1, 8))
def test_any_shares_as_many_as_the_threshold_give_the_secret(
    data: st.DataObject, secrets: list[bytes], count: int
) -> None:
    threshold = data.draw(st.integers(1, count))
    places = data.draw(st.lists(st.integers(1, 60), min_size=count, max_size=count, unique=True))
    shares = shares_of(secrets, threshold=threshold, places=places, stream=SecureStream())
    assert list(shares) == places
    chosen = data.draw(st.permutations(places))[: data.draw(st.integers(threshold, count))]
    for position, secret in enumerate(secrets):
        assert secret_from({place: shares[place][position] for place in chosen}, threshold=threshold) == secret


@given(data=st.data(), secret=SECRETS, threshold=st.integers(1, 6))
def test_lagrange_with_fractions_gives_the_same(data: st.DataObject, secret: bytes, threshold: int) -> None:
    places = data.draw(st.lists(st.integers(1, 50), min_size=threshold, max_size=threshold, unique=True))
    shares = shares_of([secret], threshold=threshold, places=places, stream=SecureStream())
    values = {place: element(share) for place, [share] in shares.items()}
    assert constant_term(values, PRIME) == int.from_bytes(secret, "big")


def test_shares_are_the_polynomial_that_the_stream_draws() -> None:
    """Coefficients are 48 bytes each, reduced, the secret is the constant term; evaluated by Horner's rule here."""
    secrets, places, threshold = [bytes([7]) * 32, bytes([9]) * 32], (1, 5, 50), 4
    drawn = SecureStream(bytes(32)).random_bytes(48 * 3 * 2)
    numbers = [int.from_bytes(drawn[start : start + 48], "big") % PRIME for start in range(0, len(drawn), 48)]
    shares = shares_of(secrets, threshold=threshold, places=places, stream=SecureStream(bytes(32)))
    for position, secret in enumerate(secrets):
        polynomial = [int.from_bytes(secret, "big"), *numbers[3 * position : 3 * position + 3]]
        for place in places:
            assert shares[place][position] == horner(polynomial, place, PRIME).to_bytes(33, "big")


@pytest.mark.parametrize(("prime", "threshold", "places"), [(5, 2, (1, 2, 3)), (7, 3, (1, 2, 4, 6)), (3, 2, (1, 2))])
def test_fewer_shares_than_the_threshold_are_independent_of_the_secret(
    small_field: pytest.MonkeyPatch, prime: int, threshold: int, places: tuple[int, ...]
) -> None:
    """Over all polynomials of a small field: each t - 1 shares take all values equally often, whatever the secret."""
    small_field.setattr(shamir, "PRIME", prime)
    for secret in range(prime):
        seen = {some: Counter[tuple[int, ...]]() for some in itertools.combinations(places, threshold - 1)}
        for coefficients in itertools.product(range(prime), repeat=threshold - 1):
            small_field.setattr(shamir, "_coefficients", lambda count, stream, drawn=coefficients: list(drawn))
            shares = shares_of(
                [secret.to_bytes(32, "big")], threshold=threshold, places=places, stream=SecureStream(bytes(32))
            )
            for some, counted in seen.items():
                counted[tuple(element(shares[place][0]) for place in some)] += 1
            for enough in itertools.combinations(places, threshold):
                found = secret_from({place: shares[place][0] for place in enough}, threshold=threshold)
                assert int.from_bytes(found, "big") == secret
        for counted in seen.values():
            assert set(counted.values()) == {1}
            assert len(counted) == prime ** (threshold - 1)


@pytest.mark.statistical
def test_shares_of_two_secrets_look_alike() -> None:
    """Chi-square on the lowest byte of each share, of the least and of the greatest secret; fails by chance in 1e-6."""
    counts = []
    for number, secret in enumerate((bytes(32), b"\xff" * 32)):
        stream = SecureStream(bytes([number]) * 32)
        shares = shares_of([secret] * 4000, threshold=3, places=(1, 2), stream=stream)
        lows = np.array([[share[-1] for share in shares[place]] for place in (1, 2)])
        counts.append(np.bincount(lows.ravel(), minlength=256))
        together = np.histogram2d(lows[0], lows[1], bins=(8, 8), range=((0, 256), (0, 256)))[0]
        assert stats.chisquare(together.ravel()).pvalue > 1e-6
    assert stats.chisquare(counts[0]).pvalue > 1e-6
    expected = np.stack(counts).sum(axis=0) / 2
    statistic = sum(((counted - expected) ** 2 / expected).sum() for counted in counts)
    assert stats.chi2.sf(statistic, 255) > 1e-6


def test_each_secret_has_a_polynomial_of_its_own() -> None:
    """The same secret twice gives different shares."""
    shares = shares_of([bytes(32)] * 2, threshold=2, places=(1, 2), stream=SecureStream(bytes(32)))
    assert all(first != second for first, second in shares.values())


def test_a_threshold_of_one_gives_the_secret_to_everybody() -> None:
    shares = shares_of([b"s" * 32], threshold=1, places=(1, 2), stream=SecureStream(bytes(32)))
    assert shares == {1: [b"\0" + b"s" * 32], 2: [b"\0" + b"s" * 32]}


def test_too_few_shares_are_refused() -> None:
    shares = shares_of([bytes(32)], threshold=3, places=(1, 2, 3), stream=SecureStream(bytes(32)))
    with pytest.raises(ProtocolError, match=r"^2 shares are there and 3 are needed; the sum cannot be opened$"):
        secret_from({place: shares[place][0] for place in (1, 2)}, threshold=3)


def test_a_false_share_gives_another_secret_or_none() -> None:
    """Shares alone cannot tell who lied; the digest of a seed does (`coordinator`)."""
    secret = b"s" * 32
    shares = {p: s for p, [s] in shares_of([secret], threshold=2, places=(1, 2), stream=SecureStream()).items()}
    forged = (element(shares[2]) + 1) % PRIME
    assert secret_from(shares | {2: forged.to_bytes(33, "big")}, threshold=2) != secret


def test_a_secret_of_more_than_32_bytes_is_refused() -> None:
    """The field has 297 elements more than 32 bytes can say."""
    rule = "^shares do not belong together: they give no 32 bytes; one of their holders sent another$"
    for value in (2**256, PRIME - 1):
        with pytest.raises(ProtocolError, match=rule):
            secret_from({1: value.to_bytes(33, "big")}, threshold=1)
    assert secret_from({1: (2**256 - 1).to_bytes(33, "big")}, threshold=1) == b"\xff" * 32


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big"), b"\xff" * 33])
def test_a_share_that_is_no_element_is_refused(share: bytes) -> None:
    for refuse in (element, lambda share: secret_from({1: share}, threshold=1)):
        with pytest.raises(ProtocolError, match=r"^a share is no element of the field; it was changed on the way$"):
            refuse(share)


def test_an_element_is_its_share_big_endian() -> None:
    assert element((PRIME - 1).to_bytes(SHARE_BYTES, "big")) == PRIME - 1
    assert element(bytes(32) + b"\x05") == 5


def test_only_as_many_shares_as_needed_are_used_those_of_the_first_places() -> None:
    """A wrong share further back does no harm, so one that is left over is not asked for its reason."""
    shares = {p: s for p, [s] in shares_of([b"s" * 32], threshold=2, places=(3, 1, 2), stream=SecureStream()).items()}
    assert secret_from(shares | {3: bytes(33)}, threshold=2) == b"s" * 32
    assert secret_from(shares | {1: bytes(33)}, threshold=2) != b"s" * 32

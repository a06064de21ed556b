"""Keys that two holders share: one X25519 agreement for a session, and from it fresh keys for every sum.

    root    = HKDF-SHA256(DH(own, other), salt = label, info = session || both names)
    chain_0 = root,  chain_(s+1) = HKDF-Expand(chain_s, "next")            s: the number of the sum in the session
    seed    = HKDF-Expand(chain_s, "mask" || context)                      key of the AES-CTR mask of the pair
    parcel  = HKDF-Expand(chain_s, "parcel" || context || from || to)      AES-GCM key of shares in one direction

The context of a sum is the hash of everything that both must agree on (`terms`). Giving away a seed tells nothing of
any other key, and once a chain has moved on, nobody can go back to the keys of a sum that is over.

Source: RFC 7748 (X25519), RFC 5869 (HKDF), NIST SP 800-38D (GCM).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from privacy.randomness import SecureStream
from privacy.secure_aggregation.wire import pack
from protocol.errors import AggregationRefusedError, ProtocolError

SEED_BYTES = 32
NONCE_BYTES, TAG_BYTES = 12, 16
FURTHEST = 1 << 16
"""Sums that may be skipped at once; a coordinator must not keep a holder busy with empty steps."""


class PairChain:
    """What a holder shares with one other: the key chain of a session, at some sum. Moves forward only."""

    def __init__(self, own: X25519PrivateKey, other: bytes, *, info: bytes) -> None:
        self._chain, self._at = bytearray(agreed(own, other, info=info)), 0

    def check(self, sequence: int) -> None:
        """Refuse a sum that is over, or too far ahead."""
        self._live()
        if not self._at <= sequence <= self._at + FURTHEST:
            raise AggregationRefusedError(
                f"sum {sequence} does not follow sum {self._at}: keys of a sum that is over are gone; start a new "
                "session"
            )

    def advance(self, sequence: int) -> None:
        """Move on to a sum; keys of earlier ones cannot be made any more."""
        self.check(sequence)
        while self._at < sequence:
            self._chain[:] = expanded(self._chain, pack("next"))
            self._at += 1

    def seed(self, context: bytes) -> bytes:
        """Seed of the mask that the two of a pair add and subtract."""
        return expanded(self._live(), pack("mask", context))

    def parcel_key(self, context: bytes, *, sender: str, recipient: str) -> bytes:
        """Key for shares from one to the other."""
        return expanded(self._live(), pack("parcel", context, sender.encode(), recipient.encode()))

    def wipe(self) -> None:
        """Overwrite the chain; there are no keys any more, not even those that zeros would give."""
        self._chain[:] = bytes(len(self._chain))
        self._chain = bytearray()

    def _live(self) -> bytearray:
        if not self._chain:
            raise AggregationRefusedError("the keys of a session that was closed are gone; start a new session")
        return self._chain


def agreed(own: X25519PrivateKey, other: bytes, *, info: bytes) -> bytes:
    """Root key of a pair.

    Raises:
        ProtocolError: the other key is none, or a point of small order.
    """
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        raise ProtocolError("a key that was advertised cannot be used; ask its holder to start again") from None
    return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=b"migrafed sa1 pair", info=info).derive(shared)


def expanded(key: bytes | bytearray, info: bytes) -> bytes:
    """HKDF-Expand to 32 bytes."""
    return HKDFExpand(algorithm=SHA256(), length=SEED_BYTES, info=info).derive(bytes(key))


def fresh_nonce(stream: SecureStream) -> bytes:
    """A nonce of its own for every parcel, although every parcel has a key of its own too."""
    return stream.random_bytes(NONCE_BYTES)


def sealed(key: bytes, content: bytes, *, nonce: bytes, label: bytes) -> bytes:
    """nonce || AES-256-GCM(content), bound to a label."""
    return nonce + AESGCM(key).encrypt(nonce, content, label)


def opened(key: bytes, parcel: bytes, *, label: bytes) -> bytes:
    """What `sealed` closed.

    Raises:
        AggregationRefusedError: cut short, changed, or of another sum, sender or recipient.
    """
    try:
        return AESGCM(key).decrypt(parcel[:NONCE_BYTES], parcel[NONCE_BYTES:], label)
    except (InvalidTag, ValueError):  # a ValueError is a nonce cut short
        raise AggregationRefusedError(
            "shares do not open: cut short, changed, or of another sum, run or holder; nothing is given away"
        ) from None

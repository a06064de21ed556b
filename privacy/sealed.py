"""Sealed parcels between two holders, so that whoever relays them sees bytes and lengths and nothing else.

::

    north, east = SealingKey.generate(), SealingKey.generate()
    parcel = north.seal(b"counts", to=east.public, context=b"run 7, pushes, north to east")
    east.open(parcel, sender=north.public, context=b"run 7, pushes, north to east")

For each parcel a fresh X25519 key (e, E) is drawn; with the sender's key (s, S) and the recipient's R

    key = HKDF-SHA256(DH(e, R) || DH(s, R), salt = protocol name, info = E || S || R || context)
    parcel = E || AES-256-GCM(key, nonce = 0, plaintext, associated data = E || S || R || context)

which is the authenticated mode of a Diffie-Hellman KEM: only the holders of s and of the recipient's key can make a
parcel that opens. The nonce is constant because every key is used once. A context that names run, phase, sender and
recipient keeps a parcel from being replayed elsewhere. Lengths are not hidden.

**What it does not do.** It proves possession of keys, not who has them. Where holders learn each other's public keys
from the coordinator, a coordinator that replaces keys can read and rewrite everything (an active attack; one that only
looks, or is seized later, cannot). `privacy.signed_keys` closes this: holders sign their sealing keys with those of a
roster that they agreed on elsewhere. There is no forward secrecy against the theft of a recipient's key.

Source: RFC 9180, section 4.1 (AuthEncap) for the construction, RFC 7748 (X25519), RFC 5869 (HKDF). The bytes on the
wire are this project's, not those of RFC 9180: `cryptography` offers no authenticated mode of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.errors import PrivacyParameterError, ProtocolError

KEY_BYTES = 32
OVERHEAD = KEY_BYTES + 16
"""Bytes by which a parcel is longer than what is in it: the fresh public key and the tag."""
_SEAL, _SHARED = b"migrafed sealed parcel 1", b"migrafed shared key 1"
_NONCE = bytes(12)


class SealingKey:
    """A holder's X25519 key pair; its representation never shows the secret.

    Args:
        secret: 32 bytes that only this holder knows.

    Raises:
        PrivacyParameterError: the secret does not have 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise PrivacyParameterError(f"a sealing key has {KEY_BYTES} bytes, got {len(secret)}; generate one")
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> SealingKey:
        """A new pair from the operating system's randomness."""
        return cls(X25519PrivateKey.generate().private_bytes_raw())

    def __repr__(self) -> str:
        return f"SealingKey(public={self.public.hex()[:12]}…)"

    def secret_bytes(self) -> bytes:
        """The secret, to be kept in a file that only this holder can read."""
        return self._key.private_bytes_raw()

    def seal(self, content: bytes, *, to: bytes, context: bytes) -> bytes:
        """Content that only the owner of the public key `to` can open, and can tell is from this holder.

        Raises:
            ProtocolError: `to` is no usable public key.
        """
        fresh = X25519PrivateKey.generate()
        sent = fresh.public_key().public_bytes_raw()
        info = sent + self.public + to + context
        key = _derived(_agreed(fresh, to) + _agreed(self._key, to), _SEAL, info)
        return sent + AESGCM(key).encrypt(_NONCE, content, info)

    def open(self, parcel: bytes, *, sender: bytes, context: bytes) -> bytes:
        """What `sender` sealed for this holder in this context.

        Raises:
            ProtocolError: cut short, changed, from somebody else, for somebody else, or of another context.
        """
        # What is cut too short to have a key and a tag is filled up, and then fails like anything else that is wrong.
        parcel = parcel.ljust(OVERHEAD, b"\1")
        sent, rest = parcel[:KEY_BYTES], parcel[KEY_BYTES:]
        try:
            info = sent + sender + self.public + context
            key = _derived(_agreed(self._key, sent) + _agreed(self._key, sender), _SEAL, info)
            return AESGCM(key).decrypt(_NONCE, rest, info)
        except InvalidTag:
            raise ProtocolError(
                "a sealed parcel does not open: cut short, changed, or not from this sender, for this holder and this "
                "phase; start the exchange again, and compare keys with the sender"
            ) from None

    def derived(self, purpose: bytes) -> bytes:
        """32 bytes that only this holder can compute, the same after a restart."""
        return _derived(self.secret_bytes(), b"migrafed own key 1", purpose)

    def shared(self, other: bytes, *, purpose: bytes) -> bytes:
        """32 bytes that this holder and the owner of `other` can compute and nobody else; the same for both.

        Raises:
            ProtocolError: `other` is no usable public key.
        """
        both = b"".join(sorted((self.public, other)))
        return _derived(_agreed(self._key, other), _SHARED, both + purpose)


def checked_keys(keys: Mapping[str, bytes]) -> dict[str, bytes]:
    """Public keys of the other holders; whose they are, only a signature tells (`privacy.signed_keys`).

    Raises:
        ProtocolError: a key of a wrong length, or two holders with one key.
    """
    if odd := sorted(name for name, key in keys.items() if len(key) != KEY_BYTES):
        raise ProtocolError(f"the keys of {odd[:3]} do not have {KEY_BYTES} bytes; both sides must run one version")
    if len(set(keys.values())) != len(keys):
        raise ProtocolError("two holders sent the same key; one of them must be replaced, ask both")
    return dict(keys)


def _agreed(key: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # not 32 bytes, or a point of small order, which would give a key that everybody knows
        raise ProtocolError("a public key cannot be used; ask its holder for the right one") from None


def _derived(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)

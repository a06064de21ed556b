"""A holder's own keys, and its answer to a coordinator's invitation.

::

    invitation = load_invitation(path)          # shows `invitation.fingerprint`, which the operators compare
    joining, file = take_invitation(place, invitation)  # the file goes back; its fingerprint is compared too

Both private keys are readable by their owner alone, and an agent refuses keys that are not; where the node is another
system user, its key may be read by that user's group.
"""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from clients.private_files import make_private_folder, write_private
from clients.settings import IDENTITY_KEY, NODE_KEY, HolderPlace
from privacy.secure_aggregation.roster import Identity
from protocol.errors import PlanError, StorageError
from protocol.membership import Invitation, Joining, key_fingerprint, read_file


def load_invitation(path: Path) -> Invitation:
    """An invitation from a file, if it is still valid.

    Raises:
        InputError: no such file, not an invitation, of another version, or it is over.
        ForgedFileError: it was changed on the way.
    """
    invitation = read_file(Invitation, path)
    invitation.check_time()
    return invitation


def take_invitation(place: HolderPlace, invitation: Invitation, *, new_keys: bool = False) -> tuple[Joining, bytes]:
    """Keep the coordinator's certificate authority and answer with this holder's keys; the answer, and it as a file.

    Args:
        place: The holder.
        invitation: For it, compared by its operator.
        new_keys: Draw both keys anew first, because others may know the old ones, or because the coordinator shut the
            old node out.

    Raises:
        PlanError: it is for another holder, this one belongs to another coordinator, or a key cannot be used.
        StorageError: the folder cannot be written.
    """
    if invitation.holder != place.name:
        raise PlanError(
            f"the invitation is for '{invitation.holder}' and {place.file} for '{place.name}'; ask the coordinator for "
            "one with that name, or change [holder] name"
        )
    joined = place.config.coordinator
    if joined is not None and joined.key != invitation.coordinator:
        raise PlanError(
            f"'{place.name}' belongs to the coordinator with key {key_fingerprint(joined.key)}, and the invitation "
            f"is of {key_fingerprint(invitation.coordinator)}; make another folder with 'migrafed holder init', or "
            "take [coordinator] out of the settings if that one is no more"
        )
    ca = place.ca if joined is not None else place.own(CA_FILE)
    try:
        if new_keys:
            replace_keys(place)
        joining, blob = Joining.answering(invitation, identity=identity_of(place).key, node=node_key_of(place))
        make_private_folder(ca.parent)
        write_private(ca, invitation.ca.encode())
    except OSError as error:
        raise StorageError(
            f"cannot write to {place.folder} ({error.strerror}); make room or see to its mode, and join again: an "
            "earlier key stays beside the new one"
        ) from None
    return joining, blob


CA_FILE = "coordinator/ca.pem"
"""Where an invitation's certificate authority is kept, in the holder's folder."""


def make_keys(place: HolderPlace) -> None:
    """Draw both keys of a holder; one that is there already stays.

    Raises:
        OSError: a key cannot be written.
    """
    identity, node = place.own(IDENTITY_KEY), place.own(NODE_KEY)
    make_private_folder(identity.parent)
    if not identity.exists():
        key = Ed25519PrivateKey.generate()
        write_private(identity, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    if not node.exists():
        own = ec.generate_private_key(ec.SECP384R1())
        write_private(node, own.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))


def replace_keys(place: HolderPlace) -> None:
    """Draw both keys anew. The old ones stay beside them, of no use once the coordinator has admitted the answer.

    An old key is never replaced: of what was broken off and done again, every key is there still.

    Every approval is void from now on: rosters have the old key.

    Raises:
        OSError: a key cannot be written.
    """
    for path in (place.own(IDENTITY_KEY), place.own(NODE_KEY)):
        if path.exists():
            path.replace(_unused(path))
    make_keys(place)


def _unused(path: Path) -> Path:
    """``identity.key.pem.old``, or with a number after it."""
    numbers = itertools.count(2)
    old = path.with_name(f"{path.name}.old")
    while old.exists():
        old = path.with_name(f"{path.name}.old{next(numbers)}")
    return old


def identity_of(place: HolderPlace) -> Identity:
    """The holder's name and signing key.

    Raises:
        PlanError: no key, no Ed25519 key, or others can read it.
    """
    path = place.own(IDENTITY_KEY)
    content = read_secret(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PlanError(f"{path} holds no Ed25519 key; restore it from a backup, or make a new one and join again")
    return Identity(place.name, key)


def node_key_of(place: HolderPlace) -> ec.EllipticCurvePrivateKey:
    """The key that signs the node's requests.

    Raises:
        PlanError: no key, no EC key, or others can read it than the node's group.
    """
    path = place.own(NODE_KEY)
    content = read_secret(path, group=place.config.holder.node_user is not None)
    try:
        key = load_ssh_private_key(content, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PlanError(f"{path} holds no EC key in OpenSSH form; restore it, or make a new one and join again")
    return key


def read_secret(path: Path, *, group: bool = False) -> bytes:
    """A file that nobody else may read, or with `group` its group only.

    Raises:
        PlanError: it is missing, no plain file, or has other modes.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise PlanError(
            f"cannot read {path} ({error.strerror}); restore it from a backup, or make new keys "
            "with 'migrafed holder join --new-keys'"
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        forbidden, wanted = (0o037, "640") if group else (0o077, "600")
        if not stat.S_ISREG(mode) or mode & forbidden:
            raise PlanError(
                f"{path} has mode {stat.S_IMODE(mode):o}, and others could use it; run: chmod {wanted} {path}"
            )
        return file.read()

"""Who else may read or change what is a holder's own: looked at by `holder check`, and before agent or node start."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from clients.holder_folder import node_group
from clients.joining import CA_FILE
from clients.settings import APPROVALS, COORDINATOR, IDENTITY_KEY, LEDGERS, NODE_KEY, OUTBOX, RUNS, HolderPlace
from protocol.errors import PlanError


def wrong_modes(place: HolderPlace) -> Iterator[tuple[str, str]]:
    """Each path that others may read or write, or that is somebody else's; with what to type.

    Nobody else reads anything, but the node's group what a node needs.

    Raises:
        PlanError: the node's user is unknown.
    """
    group = node_group(place.config.holder.node_user)
    for path, most, wanted in _modes(place, shared=group is not None):
        if not path.exists():
            continue
        found = path.stat()
        mode = stat.S_IMODE(found.st_mode)
        if mode & ~most:
            yield f"{path} has mode {mode:04o}", f"chmod {wanted:o} {path}"
        elif wanted & 0o070 and found.st_gid != group:
            yield f"{path} is not of the node's group", f"chgrp {group} {path}"
        elif found.st_uid not in (os.geteuid(), 0) and not wanted & 0o070:
            yield f"{path} belongs to user {found.st_uid}", f"run this as that user, or chown {path}"


def check_modes(place: HolderPlace) -> None:
    """Refuse to open keys and rows where somebody else could read the keys, or write the policy.

    Raises:
        PlanError: which paths, and what to type for each.
    """
    if wrong := [f"{problem}: {way_out}" for problem, way_out in wrong_modes(place)]:
        raise PlanError(f"nothing was started, for others may read or change what is this holder's: {'; '.join(wrong)}")


def _modes(place: HolderPlace, *, shared: bool) -> Iterator[tuple[Path, int, int]]:
    """Each path, the bits that it may have, and the mode it should have."""
    folder, passed, file = (0o710, 0o710, 0o640) if shared else (0o700, 0o700, 0o600)
    yield place.folder, folder, folder
    for name in ("keys", COORDINATOR):
        yield place.own(name), passed, passed
    for path in (place.file, place.own(NODE_KEY), place.own(CA_FILE)):
        yield path, 0o640 if shared else 0o600, file
    for name in (LEDGERS, APPROVALS, RUNS):
        yield place.own(name), 0o700, 0o700
    for name in (IDENTITY_KEY, OUTBOX):
        yield place.own(name), 0o600, 0o600

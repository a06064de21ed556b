"""Who is at the other end of a Unix socket, as the kernel tells it, and who may be."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from dataclasses import dataclass

from protocol.errors import PlanError

_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True)
class Peer:
    """The process that connected.

    Args:
        process: Its number.
        user: Number of its system user.
    """

    process: int
    user: int

    @property
    def own(self) -> bool:
        """Whether it runs as the same user as this process."""
        return self.user == os.geteuid()


def peer_of(connection: socket.socket) -> Peer:
    """Who connected. Nothing that the peer says or later becomes can change it."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(told)
    return Peer(process, user)


def user_number(name: str | None) -> int:
    """Number of a system user; this process's own if no name is given.

    Raises:
        PlanError: there is no such user.
    """
    return os.geteuid() if name is None else account_of(name).pw_uid


def account_of(name: str) -> pwd.struct_passwd:
    """The account of a system user.

    Raises:
        PlanError: there is none.
    """
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise PlanError(
            f"there is no system user '{name}' (holder.node_user); make one, or leave node_user out if the node runs "
            "as the agent's own user"
        ) from None

"""The file ``members.json``: who was invited and who was admitted, changed by one process at a time, step by step."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from protocol.errors import PlanError, StorageError
from protocol.files import write_whole
from protocol.frozen import FrozenConfig
from protocol.membership import key_fingerprint
from protocol.plan import parse_config


class Invited(FrozenConfig):
    """An invitation that was not answered yet."""

    nonce: str
    expires: int


class Member(FrozenConfig):
    """An admitted holder.

    identity: Ed25519 public key, hexadecimal. node: EC public key, OpenSSH form. node_id: its number at the SuperLink,
    once it is registered there. admitted: seconds since 1970. nonce: of the invitation that it answered.
    """

    identity: str
    node: str
    node_id: int | None = None
    admitted: int
    nonce: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its signing key."""
        return key_fingerprint(self.identity)


class Book(FrozenConfig):
    """The whole file. leaving: keys of nodes that are still to be shut out."""

    version: Literal[1] = 1
    invited: dict[str, Invited] = Field(default_factory=dict)
    members: dict[str, Member] = Field(default_factory=dict)
    leaving: tuple[str, ...] = ()

    def with_invited(self, holder: str, invited: Invited) -> Book:
        """An invitation more, in place of an earlier one to this holder."""
        return self.model_copy(update={"invited": self.invited | {holder: invited}})

    def with_member(self, holder: str, member: Member) -> Book:
        """A member more, whose invitation is over; a node key that it had before leaves, the one it has now stays."""
        before = self.members.get(holder)
        if before is not None and before.node == member.node:
            member = member.model_copy(update={"node_id": before.node_id})
        gone = () if before is None or before.node == member.node else (before.node,)
        return Book(
            invited={name: one for name, one in self.invited.items() if name != holder},
            members=dict(sorted((self.members | {holder: member}).items())),
            leaving=tuple(key for key in (*self.leaving, *gone) if key != member.node),
        )

    def without(self, holder: str) -> Book:
        """Neither a member nor invited; its node leaves."""
        gone = (self.members[holder].node,) if holder in self.members else ()
        return Book(
            invited={name: one for name, one in self.invited.items() if name != holder},
            members={name: one for name, one in self.members.items() if name != holder},
            leaving=(*self.leaving, *gone),
        )

    def without_node(self, key: str) -> Book:
        """A node that has left."""
        return self.model_copy(update={"leaving": tuple(one for one in self.leaving if one != key)})

    def with_number(self, holder: str, node_id: int) -> Book:
        """The number of a member's node."""
        member = self.members[holder].model_copy(update={"node_id": node_id})
        return self.model_copy(update={"members": self.members | {holder: member}})


Change = Callable[[Callable[[Book], Book]], Book]


class BookFile:
    """A `Book` on the disk, mode 0600.

    Args:
        path: Where it lies.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Book:
        """What the file says now; an empty book where there is none.

        Raises:
            PlanError: it is damaged, or somebody else's.
        """
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return Book()
        except OSError as error:
            raise PlanError(f"cannot read {self._path} ({error.strerror}); run as the user it belongs to") from None
        try:
            return parse_config(Book, json.loads(content), where=self._path.name)
        except (ValueError, RecursionError) as error:
            problem = error if isinstance(error, PlanError) else "no JSON object"
            raise PlanError(f"{self._path} is damaged ({problem}); restore it from the backup of its folder") from None

    @contextmanager
    def changing(self) -> Iterator[Change]:
        """Be the only process that changes the file; each change is on the disk when it returns.

        Raises:
            StorageError: it cannot be written; it is then as it was before that change.
        """
        try:
            lock = os.open(
                self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise StorageError(
                f"cannot write to {self._path.parent} ({error.strerror}); make room, or run as its owner"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._change
        finally:
            os.close(lock)

    def _change(self, step: Callable[[Book], Book]) -> Book:
        book = step(self.read())
        content = json.dumps(book.model_dump(mode="json"), indent=1) + "\n"
        try:
            write_whole(self._path, lambda part: _write_private(part, content.encode()))
        except OSError as error:
            raise StorageError(f"cannot write {self._path} ({error.strerror}); it is as it was before") from None
        return book


def _write_private(part: Path, content: bytes) -> None:
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)

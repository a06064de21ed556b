"""Who takes part: invited, admitted with their keys, registered as nodes; kept in ``members.json``.

::

    members = Members(place)
    invitation, file = members.invite("north", days=14)      # goes to the holder, out of band
    members.admit(Joining.read(answer, where=name))          # after the operators compared its fingerprint
    members.register(control)                                # nodes that the SuperLink does not know yet
    members.page(names), members.roster(names), members.nodes(names)

An invitation is answered once: its nonce is forgotten with the answer that is admitted. A holder that changes its keys
is invited again, and its new answer replaces the old one; a roster made before then has a key that is no more.
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Iterable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_public_key,
)

from privacy.secure_aggregation.roster import Roster
from protocol.errors import InputError, PlanError
from protocol.membership import Invitation, Joining, RosterPage, check_name, key_fingerprint, utc
from protocol.plan import parse_config
from server.link.authority import read_own
from server.member_book import Book, BookFile, Invited, Member
from server.settings import CA, KEY, MEMBERS, ServerPlace

DAYS = 14
"""How long an invitation is valid, unless said otherwise."""
_LONGEST_DAYS = 365


class Node(Protocol):
    """A node that is registered: `server.link.control.NodeSeen`."""

    @property
    def node_id(self) -> int:
        """Its number."""
        ...

    @property
    def public_key(self) -> bytes:
        """Its key, PEM."""
        ...


class Nodes(Protocol):
    """What registers nodes: `server.link.control.Control`."""

    def nodes(self) -> Iterable[Node]:
        """Nodes that are registered."""
        ...

    def register(self, public_key: bytes) -> int:
        """Let a node in; its number."""
        ...

    def unregister(self, node_id: int) -> None:
        """Shut a node out."""
        ...


class Members:
    """The members of one federation; several processes may use it at once.

    Args:
        place: The coordinator's folder.
    """

    def __init__(self, place: ServerPlace) -> None:
        self._place, self._file = place, BookFile(place.own(MEMBERS))

    @property
    def book(self) -> Book:
        """Everybody, as the file says now.

        Raises:
            PlanError: it is damaged.
        """
        return self._file.read()

    def invite(
        self, holder: str, *, days: float = DAYS, address: str | None = None, now: float | None = None
    ) -> tuple[Invitation, bytes]:
        """A new invitation, and the same as a file; an earlier one to this holder that was not answered is void.

        Raises:
            PlanError: no name of a holder, no number of days, or no address.
        """
        try:
            check_name(holder)
        except ValueError as error:
            raise PlanError(f"holder {error}; give the name that it has in plans") from None
        if not 0 < days <= _LONGEST_DAYS:
            raise PlanError(f"an invitation for {days:g} days was asked for; give more than 0, at most {_LONGEST_DAYS}")
        key = signing_key(self._place)
        values = {
            "server": self._place.config.server.name,
            "address": address if address is not None else own_address(self._place),
            "ca": read_own(self._place, CA).decode(errors="replace"),
            "coordinator": _public(key),
            "holder": holder,
            "nonce": secrets.token_hex(16),
            "expires": int(_time(now) + days * 86_400),
        }
        invitation = parse_config(Invitation, values, where="invitation")
        with self._file.changing() as change:
            change(lambda book: book.with_invited(holder, Invited(nonce=invitation.nonce, expires=invitation.expires)))
        return invitation, invitation.signed(key)

    def check(self, joining: Joining, *, now: float | None = None) -> None:
        """Whether an answer could be admitted; changes nothing.

        Raises:
            PlanError: it answers another coordinator, no invitation, one that is over or was answered, or brings a key
                that another member has.
        """
        self._check(self.book, joining, _time(now))

    def admit(self, joining: Joining, *, now: float | None = None) -> Member:
        """Take in the keys of a holder whose answer was compared; in place of those that it had before.

        Raises:
            PlanError: see `check`.
        """

        def admitted(book: Book) -> Book:
            self._check(book, joining, _time(now))
            member = Member(identity=joining.identity, node=joining.node, admitted=int(_time(now)), nonce=joining.nonce)
            return book.with_member(joining.holder, member)

        with self._file.changing() as change:
            return change(admitted).members[joining.holder]

    def remove(self, holder: str) -> None:
        """Forget a holder and its invitation; its node is shut out with the next `register`.

        Raises:
            InputError: no such holder.
        """

        def removed(book: Book) -> Book:
            if holder not in book.members and holder not in book.invited:
                known = ", ".join(sorted({*book.members, *book.invited})) or "nobody"
                raise InputError(f"'{holder[:64]}' is neither a member nor invited; there is {known[:300]}")
            return book.without(holder)

        with self._file.changing() as change:
            change(removed)

    def register(self, nodes: Nodes) -> list[str]:
        """Bring the SuperLink up to date: shut out nodes that left, let in all others. What went wrong, in words.

        Raises:
            LinkError: the SuperLink is away.
        """
        wrong: list[str] = []
        with self._file.changing() as change:
            there = {node.public_key: node.node_id for node in nodes.nodes()}
            for key in self.book.leaving:
                if (gone := there.get(_pem(key))) is not None:
                    nodes.unregister(gone)
                change(lambda book, key=key: book.without_node(key))
            for name, member in self.book.members.items():
                try:
                    number = nodes.register(member.node.encode())
                except PlanError as error:
                    wrong.append(f"'{name}' could not be registered: {error}")
                    continue
                if number != member.node_id:
                    change(lambda book, name=name, number=number: book.with_number(name, number))
        return wrong

    def nodes(self, names: Iterable[str]) -> dict[str, int]:
        """The number of each of these holders' nodes.

        Raises:
            PlanError: one of them has not joined, or its node is not registered yet.
        """
        members = self._all(names)
        if waiting := sorted(name for name, member in members.items() if member.node_id is None):
            raise PlanError(
                f"the nodes of {', '.join(waiting)[:300]} are not registered with the SuperLink; 'migrafed server "
                "up' registers them when it starts it (if it runs already, 'migrafed server down' first)"
            )
        return {name: member.node_id for name, member in members.items() if member.node_id is not None}

    def roster(self, names: Iterable[str]) -> Roster:
        """The roster of exactly these holders.

        Raises:
            PlanError: one of them has not joined, or they are fewer than 2 or more than 50.
        """
        return Roster({name: bytes.fromhex(member.identity) for name, member in self._all(names).items()})

    def page(self, names: Iterable[str], *, now: float | None = None) -> tuple[RosterPage, bytes]:
        """The roster as every holder's operator gets it, and the same as a file.

        Raises:
            PlanError: see `roster`.
        """
        roster, key = self.roster(names), signing_key(self._place)
        page = RosterPage(
            server=self._place.config.server.name,
            coordinator=_public(key),
            members={name: public.hex() for name, public in roster.members.items()},
            made=int(_time(now)),
        )
        return page, page.signed(key)

    def _all(self, names: Iterable[str]) -> dict[str, Member]:
        members, wanted = self.book.members, sorted(set(names))
        if missing := [name for name in wanted if name not in members]:
            raise PlanError(
                f"{', '.join(missing)[:300]} did not join yet ({', '.join(members)[:300] or 'nobody'} did); invite "
                "each with 'migrafed server invite', and admit the answer"
            )
        return {name: members[name] for name in wanted}

    def _check(self, book: Book, joining: Joining, now: float) -> None:
        """Refuse an answer that may not be admitted; see `check`."""
        holder, own = joining.holder, _public(signing_key(self._place))
        if joining.coordinator != own:
            raise PlanError(
                f"the answer of '{holder}' is to the coordinator with key {key_fingerprint(joining.coordinator)}, and "
                f"this one's is {key_fingerprint(own)}; admit it there, or invite the holder from here"
            )
        invited, member = book.invited.get(holder), book.members.get(holder)
        way_out = f"invite it again with 'migrafed server invite {shlex.quote(holder)}'"
        if member is not None and member.nonce == joining.nonce:
            raise PlanError(
                f"this answer of '{holder}' was admitted on {utc(member.admitted)}, and each invitation has one; "
                f"if its keys have changed, {way_out}"
            )
        if invited is None:
            raise PlanError(f"'{holder}' has no open invitation; {way_out}")
        if invited.nonce != joining.nonce:
            raise PlanError(f"'{holder}' answers an earlier invitation than the last; send it that one, or {way_out}")
        if now > invited.expires:
            raise PlanError(f"the invitation of '{holder}' ended {utc(invited.expires)}; {way_out}")
        for name, other in book.members.items():
            if name != holder and (other.identity == joining.identity or other.node == joining.node):
                raise PlanError(
                    f"'{holder}' answers with a key of '{name}'; each holder makes keys of its own with 'migrafed "
                    "holder init'"
                )


def signing_key(place: ServerPlace) -> Ed25519PrivateKey:
    """The coordinator's key, which signs invitations and rosters.

    Raises:
        PlanError: it is missing, damaged, or others can read it.
    """
    content, path = read_own(place, KEY), place.own(KEY)
    if (mode := path.stat().st_mode & 0o777) & 0o077:
        raise PlanError(f"{path} has mode {mode:o}, and others could sign with it; run: chmod 600 {path}")
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PlanError(f"{path} holds no Ed25519 key; restore it from the backup of this folder")
    return key


def own_address(place: ServerPlace) -> str:
    """Where holders reach the coordinator: the first of its hosts."""
    server = place.config.server
    host = f"[{server.hosts[0]}]" if ":" in server.hosts[0] else server.hosts[0]
    return f"{host}:{server.port}"


def _public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def _pem(node: str) -> bytes:
    return load_ssh_public_key(node.encode()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _time(now: float | None) -> float:
    return time.time() if now is None else now

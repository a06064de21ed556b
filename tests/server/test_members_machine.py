"""Whatever operators do in whatever order, and wherever it is cut off: one answer to one invitation, one key to one
holder, and after a registration that went through the SuperLink lets in members and nobody else.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from protocol.errors import InputError, LinkError, PlanError
from protocol.membership import Invitation, Joining
from server.members import Members
from server.server_folder import make_server
from server.settings import ServerFile
from tests.server_members import FakeNodes, keys, pem

pytestmark = pytest.mark.slow
NAMES = st.sampled_from(["north", "east", "west"])
NUMBERS = st.integers(1, 4)
DAY = 86_400


class Federation(RuleBasedStateMachine):
    """Operators of a coordinator and of three holders with four pairs of keys."""

    invitations, answers = Bundle("invitations"), Bundle("answers")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        values = {"server": {"name": "study", "hosts": ["localhost"]}}
        self.members = Members(make_server(self.folder / "c", ServerFile.model_validate(values)))
        self.nodes, self.now = FakeNodes(), 1_800_000_000.0
        self.admitted: set[str] = set()
        self.last: dict[str, Invitation] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(target=invitations, name=NAMES)
    def invite(self, name: str) -> Invitation:
        self.last[name] = self.members.invite(name, days=2, now=self.now)[0]
        return self.last[name]

    @rule(target=answers, invitation=invitations, identity=NUMBERS, node=NUMBERS)
    def answer(self, invitation: Invitation, identity: int, node: int) -> Joining:
        return Joining.answering(invitation, identity=keys(identity)[0], node=keys(node)[1])[0]

    @rule(joining=answers)
    def admit(self, joining: Joining) -> None:
        others = [one for name, one in self.members.book.members.items() if name != joining.holder]
        taken = any(joining.identity == one.identity or joining.node == one.node for one in others)
        invited = self.last.get(joining.holder)
        may = invited is not None and invited.nonce == joining.nonce and self.now <= invited.expires and not taken
        try:
            self.members.admit(joining, now=self.now)
        except PlanError:
            assert not may
            return
        assert may
        assert joining.nonce not in self.admitted
        self.admitted.add(joining.nonce)
        del self.last[joining.holder]

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        known = name in self.members.book.members or name in self.last
        try:
            self.members.remove(name)
        except InputError:
            assert not known
            return
        assert known
        self.last.pop(name, None)

    @rule(days=st.integers(1, 2))
    def wait(self, days: int) -> None:
        self.now += days * DAY

    @rule()
    def register(self) -> None:
        self.nodes.left = None
        wrong = self.members.register(self.nodes)
        book = self.members.book
        alive = {name: one for name, one in book.members.items() if pem(one.node) not in self.nodes.gone}
        assert {one.node_id for one in alive.values()} == set(self.nodes.there.values())
        assert {pem(one.node) for one in alive.values()} == set(self.nodes.there)
        assert len(wrong) == len(book.members) - len(alive)
        assert book.leaving == ()

    @rule(after=st.integers(0, 3))
    def register_cut_off(self, after: int) -> None:
        self.nodes.left = after
        try:
            self.members.register(self.nodes)
        except LinkError:
            pass
        finally:
            self.nodes.left = None

    @invariant()
    def each_key_is_one_holder_s(self) -> None:
        members = self.members.book.members.values()
        assert len({one.identity for one in members}) == len({one.node for one in members}) == len(members)

    @invariant()
    def invitations_are_those_that_are_open(self) -> None:
        assert {name: one.nonce for name, one in self.last.items()} == {
            name: one.nonce for name, one in self.members.book.invited.items()
        }


Federation.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_members_in_any_order = Federation.TestCase

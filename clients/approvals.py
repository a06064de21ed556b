"""What the holder's operator approved: a plan, with the roster, the coordinator and the code that it is carried out by.

::

    approvals = Approvals(place)
    approvals.approve(plan, page)             # after the operator has read what it will do
    approvals.plan(plan_hash).roster          # at every use: as approved, or an error that says what is another one now
    approvals.revoke(plan_hash)               # holds from the next message on

    approval = SHA-256(plan, roster, coordinator's key, bundle, protocol version)

One file for each plan, mode 0600. The file and the holder's settings are read again at every use, so that an edited
policy, another coordinator or a revocation holds at once, and nobody has to start the agent anew.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, JsonValue

from clients.joining import identity_of, read_secret
from clients.policy import HolderPolicy
from clients.private_files import make_private_folder, write_private
from clients.settings import APPROVALS, IDENTITY_KEY, ROSTER, HolderPlace, load_place
from integration.study import StudySection
from privacy.ledger_file import sync_folder
from privacy.secure_aggregation.roster import Roster
from protocol.errors import (
    InputError,
    MigrafedError,
    NotApprovedError,
    PlanError,
    PolicyRefusedError,
    StorageError,
)
from protocol.frozen import FrozenConfig
from protocol.membership import RosterPage, key_fingerprint, read_file, utc
from protocol.plan import Plan, digest_of, parse_config, parse_plan
from protocol.stages import stages_of
from protocol.version import PROTOCOL_VERSION

_HASH = "^[0-9a-f]{64}$"
_SHORTEST = 6
"""Digits of a hash with which a plan may be named."""


class Approval(FrozenConfig):
    """What was approved, as it is kept. All but `plan` and `roster` are hashes, keys and numbers."""

    plan_hash: str = Field(pattern=_HASH)
    roster_hash: str = Field(pattern=_HASH)
    coordinator: str = Field(pattern=_HASH)
    bundle: str = Field(pattern=_HASH)
    protocol: int
    approved: int = Field(ge=0, description="seconds since 1970")
    plan: dict[str, JsonValue]
    variants: tuple[str, ...] = Field(description="hashes of plans that follow from it by a public rule")
    roster: dict[str, str]

    @property
    def digest(self) -> str:
        """The one hash that stands for all of it."""
        return digest_of(
            {
                "plan": self.plan_hash,
                "roster": self.roster_hash,
                "coordinator": self.coordinator,
                "bundle": self.bundle,
                "protocol": self.protocol,
            }
        )

    @property
    def name(self) -> str:
        """What the plan calls its runs."""
        run = self.plan.get("run")
        return str(run.get("name", "")) if isinstance(run, dict) else ""


@dataclass(frozen=True)
class ApprovedPlan:
    """A plan that may be carried out now.

    Args:
        plan: As it was approved.
        roster: Whose masked sums it may be part of.
        policy: What the holder allows, as its settings say now.
    """

    plan: Plan
    roster: Roster
    policy: HolderPolicy


class Approvals:
    """The approvals of one holder.

    Args:
        place: Its settings; read again from their file at every use.
        bundle: Digest of the code that the coordinator's runs consist of; by default what this installation makes.
    """

    def __init__(self, place: HolderPlace, *, bundle: str | None = None) -> None:
        self._file, self._folder, self._bundle = place.file, place.own(APPROVALS), bundle
        self._last: tuple[tuple[bytes, ...], ApprovedPlan] | None = None

    def proposed(self, plan: Plan, page: RosterPage) -> Approval:
        """What would be approved, after everything about it was checked; changes nothing.

        Raises:
            PlanError: the roster is not that of the plan, of another coordinator, or has another key of this holder.
            PolicyRefusedError: the holder's policy does not allow the plan.
        """
        place = load_place(self._file)
        if page.coordinator != place.coordinator.key:
            raise PlanError(
                f"the roster is signed by {page.coordinator[:12]}, and this holder's coordinator has key "
                f"{place.coordinator.key[:12]}; ask the coordinator for its roster"
            )
        roster = Roster(page.keys())
        check_members(place, plan, roster)
        check_policy(place.config.privacy, plan, roster)
        return Approval(
            plan_hash=plan.digest(),
            roster_hash=roster.digest().hex(),
            coordinator=page.coordinator,
            bundle=self._bundle_now(),
            protocol=PROTOCOL_VERSION,
            approved=int(time.time()),
            plan=plan.model_dump(mode="json"),
            variants=_variants(plan),
            roster=page.members,
        )

    def approve(self, plan: Plan, page: RosterPage) -> Approval:
        """Record that the operator approves; the same plan again replaces what was approved of it before.

        Raises:
            PlanError, PolicyRefusedError: see `proposed`.
            StorageError: it cannot be written.
        """
        approval = self.proposed(plan, page)
        content = json.dumps(approval.model_dump(mode="json") | {"digest": approval.digest}, indent=1) + "\n"
        try:
            make_private_folder(self._folder)
            write_private(self._path(approval.plan_hash), content.encode())
        except OSError as error:
            raise StorageError(
                f"cannot write to {self._folder} ({error.strerror}), so nothing was approved; make room or set the mode"
            ) from None
        return approval

    def plan(self, plan_hash: str) -> ApprovedPlan:
        """The plan of this hash, if it is approved and everything it was approved with is still the same.

        A plan that follows from an approved one by a public rule (`protocol.stages`) is approved with it: that one is
        returned.

        Raises:
            NotApprovedError: not approved, revoked, or what is another one now.
            PolicyRefusedError: the policy was changed and does not allow it any more.
            PlanError: the holder's settings cannot be read now.
        """
        place = load_place(self._file)
        own = self._origin(plan_hash)
        blob = self._read(own)
        others = (place.file, place.own(IDENTITY_KEY), place.own(ROSTER))
        read = (blob, *(_content(path) for path in others))
        if self._last is None or self._last[0] != read:
            self._last = read, self._checked(place, self._parsed(blob, own))
        return self._last[1]

    def listed(self) -> tuple[Approval, ...]:
        """All approvals, the latest first; one whose file is damaged is left out, `plan` says what is wrong with it."""
        found = []
        for path in self._folder.glob("*.json"):
            try:
                found.append(self._parsed(self._read(path.stem), path.stem))
            except MigrafedError:
                continue
        return tuple(sorted(found, key=lambda one: (-one.approved, one.plan_hash)))

    def revoke(self, plan_hash: str) -> str:
        """Take an approval back, given its hash or the first digits of it; returns the whole hash.

        Raises:
            InputError: no such approval, or several begin with these digits.
            StorageError: it cannot be removed.
        """
        path = self._path(self.resolved(plan_hash))
        try:
            path.unlink()
            sync_folder(self._folder)
        except OSError as error:
            raise StorageError(
                f"cannot remove {path} ({error.strerror}); stop the agent until that is put right"
            ) from None
        return path.stem

    def resolved(self, digits: str) -> str:
        """The whole hash of an approved plan, given its first digits.

        Raises:
            InputError: no such approval, or several begin with these digits.
        """
        wanted = digits.strip().lower()
        known = sorted(path.stem for path in self._folder.glob("*.json"))
        if len(wanted) < _SHORTEST or set(wanted) - set("0123456789abcdef"):
            raise InputError(f"'{digits[:70]}' names no plan; give at least {_SHORTEST} digits of the plan's hash")
        found = [name for name in known if name.startswith(wanted)]
        if len(found) != 1:
            among = ", ".join(name[:12] for name in found or known) or "none"
            raise InputError(
                f"{len(found)} approved plans begin with {wanted[:12]}; give more digits of one of: {among}"
            )
        return found[0]

    def _checked(self, place: HolderPlace, approval: Approval) -> ApprovedPlan:
        """Everything that was approved, compared with what it is now."""
        plan, roster = self._as_approved(approval)
        now = {
            "coordinator's key": (approval.coordinator, place.coordinator.key),
            "code": (approval.bundle, self._bundle_now()),
            "protocol version": (approval.protocol, PROTOCOL_VERSION),
            "plan": (approval.plan_hash, plan.digest()),
            "roster": (approval.roster_hash, roster.digest().hex()),
            "variants": (digest_of(list(approval.variants)), digest_of(list(_variants(plan)))),
        }
        for what, (approved, found) in now.items():
            if approved != found:
                raise _changed(what, approval, str(approved), str(found))
        received = _received_roster(place, plan)
        if received is not None and received != approval.roster_hash:
            raise _changed("roster", approval, approval.roster_hash, received)
        try:
            check_members(place, plan, roster)
        except PlanError as error:
            raise NotApprovedError(
                f"plan {approval.plan_hash[:12]} cannot be carried out as approved: {error}"
            ) from None
        check_policy(place.config.privacy, plan, roster)
        return ApprovedPlan(plan, roster, place.config.privacy)

    def _as_approved(self, approval: Approval) -> tuple[Plan, Roster]:
        try:
            keys = {name: bytes.fromhex(key) for name, key in approval.roster.items()}
            return parse_plan(approval.plan), Roster(keys)
        except (PlanError, ValueError) as error:
            raise NotApprovedError(
                f"plan {approval.plan_hash[:12]} was approved and cannot be read by this version ({error}); look at it "
                "and approve it again"
            ) from None

    def _read(self, plan_hash: str) -> bytes:
        if not re.match(_HASH, plan_hash) or not (path := self._path(plan_hash)).exists():
            raise NotApprovedError(
                f"plan {plan_hash[:12]} is not approved here, or no longer; its operator can look at it and approve it "
                "with 'migrafed holder approve PLAN'"
            )
        try:
            return read_secret(path)
        except PlanError as error:
            raise NotApprovedError(f"the approval of plan {plan_hash[:12]} cannot be trusted: {error}") from None

    def _origin(self, plan_hash: str) -> str:
        """The approved plan that a plan of this hash follows from; the hash itself where there is none."""
        if re.match(_HASH, plan_hash) and self._path(plan_hash).exists():
            return plan_hash
        return next((one.plan_hash for one in self.listed() if plan_hash in one.variants), plan_hash)

    def _parsed(self, blob: bytes, plan_hash: str) -> Approval:
        try:
            values = json.loads(blob)
            digest = values.pop("digest")
            approval = parse_config(Approval, values, where=f"approval {plan_hash[:12]}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            approval, digest = None, ""
        if approval is None or approval.digest != digest or approval.plan_hash != plan_hash:
            raise NotApprovedError(
                f"the approval of plan {plan_hash[:12]} is damaged or was edited; look at the plan and approve it again"
            )
        return approval

    def _path(self, plan_hash: str) -> Path:
        return self._folder / f"{plan_hash}.json"

    def _bundle_now(self) -> str:
        if self._bundle is None:
            from protocol.bundle import bundle  # noqa: PLC0415 -- brings Flower along, which a listing does not need

            self._bundle = bundle().digest
        return self._bundle


def check_members(place: HolderPlace, plan: Plan, roster: Roster) -> None:
    """Refuse a roster that is not exactly the plan's holders, or that has another key for this one.

    Raises:
        PlanError: who is missing, who is too many, or that the key is another one.
    """
    if place.name not in plan.federation.holders:
        raise PlanError(
            f"the plan is for {', '.join(sorted(plan.federation.holders))[:200]}, and this holder is '{place.name}'; "
            "ask the coordinator for a plan with this name"
        )
    if odd := sorted(set(roster.names) ^ set(plan.federation.holders)):
        raise PlanError(
            f"the roster is for another plan: {', '.join(odd)[:200]} stand in only one of the two; ask the "
            "coordinator for the plan's roster, which 'migrafed server roster PLAN' makes"
        )
    own = identity_of(place).public.hex()
    if (there := roster.members[place.name].hex()) != own:
        raise PlanError(
            f"the roster has key {key_fingerprint(there)} for '{place.name}', whose own is {key_fingerprint(own)}; "
            "join again and ask the coordinator for a new roster"
        )


def check_policy(policy: HolderPolicy, plan: Plan, roster: Roster) -> None:
    """Refuse what the policy does not allow, as far as the plan alone tells; noise and budget show with the data.

    Raises:
        PolicyRefusedError: which rule, what is asked for, and what is allowed.
    """
    policy.aggregation.check(plan.federation.aggregation)
    policy.aggregation.check_roster(roster.digest().hex())
    if "pushes" in plan.data:
        study = StudySection.model_validate(plan.data)
        policy.pushes.check(study.pushes, least=study.push_threshold)
    if (asked := plan.privacy) is None:
        return
    bounds: dict[str, tuple[float, float]] = {"clip_norm": (asked.clip_norm, policy.clip_norm)}
    if asked.mode == "counts":
        bounds = {"contributions": (asked.contributions, policy.contributions)}
    if asked.delta <= policy.delta:  # a larger delta is another promise: the mechanism's epsilon decides, with the data
        bounds["epsilon"] = (asked.epsilon, policy.max_epsilon)
    for rule, (wanted, most) in bounds.items():
        if not wanted <= most:
            raise PolicyRefusedError(
                f"the plan's {rule} is {wanted:g}, and the policy of '{policy.holder}' allows at most {most:g}; "
                "change the plan, or ask the holder"
            )


def _changed(what: str, approval: Approval, approved: str, found: str) -> NotApprovedError:
    return NotApprovedError(
        f"plan {approval.plan_hash[:12]} was approved on {utc(approval.approved)} with {what} {approved[:12]}, and the "
        f"{what} is {found[:12]} now; look at the plan and approve it again, if that is as it should be"
    )


def _received_roster(place: HolderPlace, plan: Plan) -> str | None:
    """Hash of the roster that was received last, if it is for the plan's holders."""
    path = place.own(ROSTER)
    if not path.exists():
        return None
    try:
        page = read_file(RosterPage, path)
        return Roster(page.keys()).digest().hex() if page.members.keys() == plan.federation.holders.keys() else None
    except MigrafedError as error:
        raise NotApprovedError(
            f"the roster received last cannot be read ({error}); ask the coordinator for it"
        ) from None


def _variants(plan: Plan) -> tuple[str, ...]:
    """Hashes of the plans of its stages, its own left out."""
    return tuple(sorted({spec.plan.digest() for spec in stages_of(plan)} - {plan.digest()}))


def _content(path: Path) -> bytes:
    """What a file holds; empty where there is none."""
    try:
        return path.read_bytes()
    except OSError:
        return b""

"""`migrafed holder join INVITATION`: take a coordinator's invitation, and write the answer that goes back."""

from __future__ import annotations

import argparse

from clients.holder_folder import find_holder, join_coordinator
from clients.joining import load_invitation, take_invitation
from migrafed.questions import Questions
from migrafed.terminal import Outcome, Terminal
from protocol.errors import NotApprovedError
from protocol.files import check_absent, write_new
from protocol.membership import Invitation, key_fingerprint, utc


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Show who invites, have the fingerprint compared, keep the coordinator's certificate and write the answer."""
    place = find_holder(options.holder)
    invitation = load_invitation(options.invitation)
    check_absent(options.out)
    for name, value in _facts(invitation):
        terminal.say(f"  {name:<12} {value}")
    _compare(options, invitation, Questions(as_json=options.json))
    joining, answer = take_invitation(place, invitation, new_keys=options.new_keys)
    join_coordinator(place, invitation)
    write_new(options.out, answer)
    payload = {
        "holder": place.name,
        "server": invitation.server,
        "address": invitation.address,
        "coordinator": invitation.coordinator,
        "invitation_fingerprint": invitation.fingerprint,
        "fingerprint": joining.fingerprint,
        "paths": {"joining": str(options.out), "settings": str(place.file), "ca": str(find_holder(options.holder).ca)},
    }
    facts = [
        ("coordinator", f"{invitation.server} at {invitation.address}"),
        ("send", f"{options.out} to its operator; it holds public keys and signatures alone"),
        ("read out", f"{joining.fingerprint} (fingerprint of that file, on the telephone)"),
        ("next", "ask for the plan and the roster, then: migrafed holder approve PLAN --roster ROSTER"),
    ]
    if options.new_keys:
        facts.append(("new keys", "start agent and node again, and approve plans again with the new roster"))
    return Outcome(payload, f"SUCCESS '{place.name}' answers the invitation", facts)


def _facts(invitation: Invitation) -> list[tuple[str, str]]:
    return [
        ("invited by", f"{invitation.server} at {invitation.address}"),
        ("for", f"holder '{invitation.holder}', until {utc(invitation.expires)}"),
        ("its key", key_fingerprint(invitation.coordinator)),
        ("fingerprint", f"{invitation.fingerprint}   compare this with what its operator says"),
    ]


def _compare(options: argparse.Namespace, invitation: Invitation, questions: Questions) -> None:
    if options.fingerprint is not None:
        if _digits(options.fingerprint) != _digits(invitation.fingerprint):
            raise NotApprovedError(
                f"{options.invitation} has fingerprint {invitation.fingerprint} and you were told "
                f"'{options.fingerprint[:60]}': it is not the file that was sent, or was changed on the way; nothing "
                "was taken from it, ask for it again"
            )
        return
    if options.yes or questions.agreed(
        f"Does the operator of '{invitation.server}' read out {invitation.fingerprint}?", flag="--fingerprint"
    ):
        return
    raise NotApprovedError("the fingerprint was not confirmed, so nothing was taken from the invitation; call and ask")


def _digits(fingerprint: str) -> str:
    return "".join(letter for letter in fingerprint.lower() if letter.isalnum())

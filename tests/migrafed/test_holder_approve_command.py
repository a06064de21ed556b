"""`migrafed holder approve`: the page says what the plan does, and nothing is approved without a yes to this plan."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from clients.approvals import Approvals
from clients.custody import Custody
from clients.holder_folder import find_holder
from clients.settings import LEDGERS, ROSTER, HolderPlace
from migrafed.__main__ import main
from protocol.errors import NotApprovedError
from protocol.membership import grouped
from protocol.plan import load_plan, read_toml
from tests.holder_places import Inviter, joined_holder
from tests.ledgers import gaussian_cost

PLANS = Path(__file__).resolve().parents[2] / "plans"
CITIES = "code,name,lat,lon\n" + "".join(f"C{n:03d},City {n},{30 + n / 10},{110 + n / 10}\n" for n in range(1, 13))


@pytest.fixture
def inviter() -> Inviter:
    return Inviter()


@pytest.fixture
def place(tmp_path: Path, inviter: Inviter) -> HolderPlace:
    made = joined_holder(tmp_path / "north", "north", inviter)
    made.data.mkdir()
    (made.data / "cities.csv").write_text(CITIES)
    return made


@pytest.fixture
def roster(tmp_path: Path, place: HolderPlace, inviter: Inviter) -> Path:
    others = [joined_holder(tmp_path / name, name, inviter) for name in ("east", "south")]
    path = tmp_path / "roster.json"
    path.write_bytes(inviter.roster(place, *others).signed(inviter.key))
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """The tutorial's plan for rows of their own."""
    return plan_file(tmp_path / "plan.toml")


def plan_file(path: Path, **sections: dict[str, Any] | None) -> Path:
    """The tutorial's plan with sections changed; None takes one away."""
    values = read_toml(PLANS / "three_regions.toml", what="plan")
    values["data"] |= {"start": "2019-01-07", "end": "2020-03-01"}
    values["data"].pop("world", None)
    for name, changes in sections.items():
        if changes is None:
            values.pop(name)
        else:
            values[name] = values.get(name, {}) | changes
    path.write_text(tomli_w.dumps(values))
    return path


Say = Callable[..., tuple[int, Any]]


@pytest.fixture
def say(place: HolderPlace, capsys: pytest.CaptureFixture[str]) -> Say:
    """Exit code and the one JSON object of `holder approve`."""

    def run(plan: Path, *arguments: object) -> tuple[int, Any]:
        code = main(["holder", "approve", str(plan), "--holder", str(place.folder), *map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def approved(place: HolderPlace, plan: Path) -> bool:
    try:
        Approvals(place).plan(load_plan(plan).digest())
    except NotApprovedError:
        return False
    return True


def test_the_page_says_who_what_price_and_what_leaves(
    place: HolderPlace, plan: Path, roster: Path, inviter: Inviter, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["holder", "approve", str(plan), "--holder", str(place.folder), "--roster", str(roster), "--show"]
    assert main(given) == 0
    page = capsys.readouterr().out
    digest = load_plan(plan).digest()
    for said in (
        f"study at {place.coordinator.address}", " ".join([digest[:4], digest[4:8], digest[8:12]]), str(place.data),
        "rows of C001, C002, C003, C004", "in at most 10 cells", "epsilon 2 at delta 1e-07; your policy allows 2",
        "nothing was charged yet", "another run costs nothing", "update of the model's weights", "as a sum over all",
        "nothing else: every message passes one gate", "code that a coordinator ships is never run",
    ):  # fmt: skip
        assert said in page, said
    assert len(page.splitlines()) <= 60
    assert not approved(place, plan)
    assert not place.own(ROSTER).exists()


def test_sizes_are_those_of_the_plan(plan: Path, roster: Path, say: Say) -> None:
    """Four rounds: an update and an error each; two phases of sums; every size is known before a row is read."""
    leaves = say(plan, "--roster", roster, "--show")[1]["page"]["leaves"]
    times = {item["what"].split(",")[0]: item["times"] for item in leaves}
    assert times["update of the model's weights"] == 4
    assert times["statistics 'margins'"] == 1
    assert all(item["bytes"] > 0 for item in leaves)
    update = next(item for item in leaves if item["what"].startswith("update"))
    assert 4 * 3814 < update["bytes"] < 4 * 3814 + 20_000  # the model has 3,814 parameters, a word for each


def test_without_public_lists_sizes_are_the_gates(place: HolderPlace, plan: Path, roster: Path, say: Say) -> None:
    (place.data / "cities.csv").unlink()
    code, answer = say(plan, "--roster", roster, "--show")
    assert code == 0
    assert any(item["bytes"] is None for item in answer["page"]["leaves"])


def test_the_hash_may_be_given_as_the_page_shows_it(place: HolderPlace, plan: Path, roster: Path, say: Say) -> None:
    """In groups of four, as operators read it to each other; another one is still another one."""
    digest = grouped(load_plan(plan).digest())
    assert say(plan, "--roster", roster, "--hash", digest[:-1] + ("0" if digest[-1] != "0" else "1"))[0] == 3
    assert say(plan, "--roster", roster, "--hash", digest.upper())[0] == 0
    assert approved(place, plan)


def test_approved_by_hash_and_kept_with_its_roster(place: HolderPlace, plan: Path, roster: Path, say: Say) -> None:
    digest = load_plan(plan).digest()
    code, answer = say(plan, "--roster", roster, "--hash", digest[:16])
    assert (code, answer["approved"], answer["plan_hash"]) == (0, True, digest)
    assert place.own(ROSTER).read_bytes() == roster.read_bytes()
    assert approved(place, plan)
    other = plan_file(plan.with_name("again.toml"), training={"rounds": 5})
    assert say(other, "--yes")[0] == 0  # the roster is known by now
    assert approved(place, other)


@pytest.mark.parametrize("given", ["0" * 64, "", "abc"])
def test_another_hash_is_another_plan(place: HolderPlace, plan: Path, roster: Path, say: Say, given: str) -> None:
    code, answer = say(plan, "--roster", roster, "--hash", given)
    assert (code, answer["error"]["kind"]) == (3, "NotApprovedError")
    assert not approved(place, plan)
    assert not place.own(ROSTER).exists()


def test_no_terminal_no_approval(place: HolderPlace, plan: Path, roster: Path, say: Say) -> None:
    code, answer = say(plan, "--roster", roster)
    assert (code, "--hash or --yes" in answer["error"]["message"]) == (2, True)
    assert not approved(place, plan)


@pytest.mark.parametrize(("typed", "code"), [("yes\n", 0), ("y\n", 3), ("", 4)])
def test_at_a_terminal_only_yes_counts(
    place: HolderPlace, plan: Path, roster: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int
) -> None:
    for name, stream in (("stdin", io.StringIO(typed)), ("stderr", io.StringIO())):
        stream.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, name, stream)
    given = ["holder", "approve", str(plan), "--holder", str(place.folder), "--roster", str(roster)]
    assert main(given) == code
    assert approved(place, plan) == (code == 0)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"privacy": {"epsilon": 3.0}}, "epsilon is 3"),
        ({"privacy": {"contributions": 11}}, "contributions is 11"),
        ({"federation": {"aggregation": "plain"}}, "allows secure"),
    ],
)
def test_what_the_policy_forbids_is_not_asked(
    place: HolderPlace, tmp_path: Path, roster: Path, say: Say, sections: dict[str, Any], said: str
) -> None:
    """--yes does not help: the policy is changed first, by whoever may. The page is there to be read all the same."""
    bad = plan_file(tmp_path / "bad.toml", **sections)
    code, answer = say(bad, "--roster", roster, "--yes")
    assert (code, answer["error"]["kind"]) == (3, "PolicyRefusedError")
    assert said in answer["error"]["message"]
    code, answer = say(bad, "--roster", roster, "--show")
    assert (code, said in answer["refused"]) == (0, True)
    assert not approved(place, bad)


def test_a_plan_for_others_or_with_another_roster(
    place: HolderPlace, tmp_path: Path, plan: Path, roster: Path, inviter: Inviter, say: Say
) -> None:
    holders = {"east": ["C001"], "south": ["C002"], "west": ["C003"]}
    others = plan_file(tmp_path / "others.toml", federation={"holders": holders})
    code, answer = say(others, "--roster", roster, "--yes")
    assert (code, "this holder is 'north'" in answer["error"]["message"]) == (2, True)
    west = joined_holder(tmp_path / "west", "west", inviter)
    pair = tmp_path / "pair.json"
    pair.write_bytes(inviter.roster(place, west).signed(inviter.key))
    code, answer = say(plan, "--roster", pair, "--yes")
    assert (code, "the roster is for another plan" in answer["error"]["message"]) == (2, True)


def test_a_roster_of_another_coordinator_or_none(place: HolderPlace, plan: Path, tmp_path: Path, say: Say) -> None:
    assert say(plan, "--yes")[1]["error"]["message"].startswith("this holder has no roster yet")
    stranger = Inviter()
    names = [place, *(joined_holder(tmp_path / name, name, stranger) for name in ("east", "south"))]
    path = tmp_path / "strange.json"
    path.write_bytes(stranger.roster(*names).signed(stranger.key))
    code, answer = say(plan, "--roster", path, "--yes")
    assert (code, "signed by" in answer["error"]["message"]) == (2, True)
    path.write_text(path.read_text().replace('"east"', '"oast"'))
    code, answer = say(plan, "--roster", path, "--yes")
    assert (code, answer["error"]["kind"]) == (2, "ForgedFileError")


def test_before_joining_nobody_can_ask(tmp_path: Path, place: HolderPlace, plan: Path, roster: Path, say: Say) -> None:
    text = place.file.read_text()
    place.file.write_text(text[: text.index("[coordinator]")])
    assert find_holder(place.folder).config.coordinator is None
    code, answer = say(plan, "--roster", roster, "--yes")
    assert (code, "migrafed holder join" in answer["error"]["message"]) == (2, True)


def test_what_is_left_comes_from_the_ledger(place: HolderPlace, plan: Path, roster: Path, say: Say) -> None:
    with Custody.at(place.own(LEDGERS) / "people", place.config.privacy) as custody:
        custody.ledger.reserve("spring", gaussian_cost("1/1000", "3/2"), request="plan", rounds=1)
    (price,) = say(plan, "--roster", roster, "--show")[1]["page"]["prices"]
    assert (price["epsilon"], price["most"], price["ledger"]) == (2.0, 2.0, "people")
    assert "nothing was charged" not in price["left"]


def test_a_plan_that_protects_nobody_says_so(place: HolderPlace, tmp_path: Path, roster: Path, say: Say) -> None:
    bare = plan_file(tmp_path / "bare.toml", privacy=None)
    page = say(bare, "--roster", roster, "--show")[1]["page"]
    assert page["prices"][0]["unit"].startswith("nobody")
    assert any("nobody's records are protected" in warning for warning in page["warnings"])


def test_the_page_of_operators_names_the_mail(
    tmp_path: Path, inviter: Inviter, capsys: pytest.CaptureFixture[str]
) -> None:
    values = read_toml(PLANS / "integration.toml", what="plan")
    values["data"]["source"] = "calls"
    values["data"].pop("world")
    path = tmp_path / "calls.toml"
    path.write_text(tomli_w.dumps(values))
    pushes = {"allow": "threshold", "least_contacts": 5}
    places = [joined_holder(tmp_path / name, name, inviter, pushes=pushes) for name in ("east", "north", "west")]
    (tmp_path / "roster.json").write_bytes(inviter.roster(*places).signed(inviter.key))
    given = ["holder", "approve", str(path), "--holder", str(places[0].folder), "--show", "--json"]
    assert main([*given, "--roster", str(tmp_path / "roster.json")]) == 0
    page = json.loads(capsys.readouterr().out)["page"]
    mail = [item["what"] for item in page["leaves"] if item["stage"] == "exchange"]
    assert any("counts of at least 5 contacts" in what for what in mail)
    assert {"groups", "newton", "FedAvg", "FedAvg, perceptron"} < {item["stage"] for item in page["leaves"]}

"""The page of a deployed run: figures of its journal, what it does not have, no outside address, and the same bytes."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from migrafed.__main__ import main
from migrafed.commands import server_run
from migrafed.reports.deployed import _ticks, render, write_deployed_report
from migrafed.reports.wording import number
from privacy.card import PrivacyCard
from protocol.errors import RunInterruptedError
from protocol.plan import Plan
from server.deployed_facts import DeployedResult
from server.run_folder import CARD_FILE, FACTS_FILE, JOURNAL_FILE, MODEL_FILE, REPORT_FILE, run_name
from simulations.progress import SilentProgress
from tests.cards import plain_card, private_card, window_card
from tests.deployed_folders import HOSTILE, fabricated
from tests.deployed_runs import PLAN, Holders, carried_out, federation_over
from tests.plans import tiny_plan

VOID = {"meta", "link", "br", "img", "input", "hr"}
CARDS = {"none": plain_card(), "counts": private_card(), "window-dpsgd": window_card()}


class _Page(HTMLParser):
    """Tags that were not closed in order, ids, and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value or "" for key, value in attrs if key == "id"]
        self.links += [value or "" for key, value in attrs if key in ("href", "src", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def check_page(page: str) -> None:
    """Well-formed, no script, and no address but anchors that lead somewhere."""
    parsed = _Page()
    parsed.feed(page)
    assert (parsed.open, parsed.wrong) == ([], [])
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "script" not in parsed.tags
    assert {link for link in parsed.links if link != "data:,"} <= {f"#{name}" for name in parsed.ids}
    assert set(re.findall(r"https?://[^\"' )<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in page


def without_times(page: str) -> str:
    """The page but for how it went: attempts, seconds, sums that were asked for again."""
    cut, count = re.subn(r'<dl class="facts" id="went">.*?</dl>', "", page, flags=re.DOTALL)
    assert count == 1
    return cut


@pytest.mark.parametrize("mode", CARDS)
@pytest.mark.parametrize("aggregation", ["secure", "robust", "plain"])
def test_the_page_is_whole_and_says_what_it_does_not_have(mode: str, aggregation: str) -> None:
    card = CARDS[mode]
    page = render(fabricated(card=card, aggregation=aggregation, told=mode != "window-dpsgd"))
    check_page(page)
    for words in (
        "There is no error on a test span and no forecast here", "rows stayed with their holders", card.headline,
        "fabricated-s0-00000000", "6f1c" * 16, "migrafed report FOLDER", "<dd>5</dd>", "123 s of work",
    ):  # fmt: skip
        assert words in page
    assert ("fig-0-loss" in page) == (mode != "window-dpsgd")
    assert ("So there is no curve to draw" in page) == (mode == "window-dpsgd")
    assert ("migrafed server verify FOLDER" in page) == (aggregation == "secure")
    assert ("Nothing was masked in this run" in page) == (aggregation != "secure")
    if aggregation == "secure":
        assert "2 of 3" in page
        assert "west (2 sums)" in page
    assert ("a window, which is not a person" in page) == (mode == "window-dpsgd")
    assert "anonym" not in page.lower()


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 1.0, 1e6])
def test_ticks_of_a_curve_differ(scale: float) -> None:
    """Also of one that hardly falls: its axis does not say the same number again and again."""
    values = [0.02 + scale * n / 5 for n in range(6)]
    label = _ticks(values)
    assert len({label(value, None) for value in values}) == len(values)


def test_hostile_names_stay_text() -> None:
    page = render(fabricated(card=plain_card(), holders=HOSTILE))
    check_page(page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tiny_plan(PLAN | {"training.rounds": 2})


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deployed run, carried out once."""
    place = tmp_path_factory.mktemp("deployed")
    return carried_out(Holders(plan, place / "h"), place / "runs").folder


@pytest.mark.slow
def test_the_figures_are_those_of_the_journal(folder: Path, plan: Plan) -> None:
    page = render(DeployedResult.read(folder))
    check_page(page)
    with closing(sqlite3.connect(folder / JOURNAL_FILE)) as db:
        rounds = [(n, json.loads(metrics)) for n, metrics in db.execute("SELECT round, metrics FROM rounds")]
        (sums,) = db.execute("SELECT count(*) FROM closings").fetchone()
    assert len(rounds) == 2
    for position, figures in rounds:
        for value in figures.values():
            assert f'<tr><th scope="row">{position}</th><td>{number(value, digits=6)}</td></tr>' in page
    assert f"<dt>masked sums opened</dt><dd>{sums}</dd>" in page
    assert "3 of 3" in page
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    for words in (
        plan.digest(),
        facts["files"][MODEL_FILE],
        facts["files"][CARD_FILE],
        facts["roster"],
        run_name(plan),
    ):
        assert words in page
    for name in plan.federation.holders:
        assert name in page


@pytest.mark.slow
def test_report_rebuilds_the_same_bytes_from_a_copy(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`migrafed report` takes a deployed folder as it takes a simulated one, and refuses a changed file."""
    first = write_deployed_report(DeployedResult.read(folder)).read_bytes()
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / REPORT_FILE).unlink()
    assert main(["report", str(copy), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert Path(told["paths"]["report"]).read_bytes() == first
    assert Path(told["paths"]["card"]) == copy / CARD_FILE
    assert main(["report", str(copy)]) == 0
    assert "errors and forecasts are made where the rows are" in capsys.readouterr().out
    (copy / MODEL_FILE).write_bytes(b"")
    assert main(["report", str(copy)]) == 2
    assert "model.safetensors differs" in capsys.readouterr().err


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_page_apart_from_times(folder: Path, plan: Plan, tmp_path: Path) -> None:
    """The same card and the same figures; attempts of both processes are added up."""
    place = folder.parents[1]
    shutil.copytree(place / "h", tmp_path / "h", ignore=shutil.ignore_patterns("states", "opened.jsonl"))
    holders = Holders(plan, tmp_path / "h")

    def press_ctrl_c(_: Any, message: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(RunInterruptedError):
        carried_out(holders, tmp_path / "runs", faults={26: press_ctrl_c})
    holders.start()
    resumed = tmp_path / "runs" / run_name(plan)
    assert not (resumed / CARD_FILE).exists(), "a run that is not done has no card"
    assert carried_out(holders, tmp_path / "runs", resume=resumed).attempts == 1
    assert (resumed / CARD_FILE).read_bytes() == (folder / CARD_FILE).read_bytes()
    one, other = (DeployedResult.read(each) for each in (folder, resumed))
    assert (one.facts.attempts, other.facts.attempts) == (1, 2)
    assert without_times(render(one)) == without_times(render(other))
    assert render(one) != render(other)


@pytest.mark.slow
@pytest.mark.parametrize("writable", [True, False])
def test_server_run_says_where_card_and_page_are(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    """Paths in JSON and in the closing block; a page that cannot be written loses nothing of the run."""
    federation = federation_over(Holders(plan, tmp_path / "h"))
    monkeypatch.setattr(server_run, "federation_of", lambda place, plan: federation)
    if not writable:
        monkeypatch.setattr(server_run, "write_deployed_report", no_room)
    place: Any = SimpleNamespace(folder=tmp_path, own=lambda name: tmp_path / name)
    terminal: Any = SimpleNamespace(progress=SilentProgress())
    outcome = server_run.carried_out(plan, place, terminal, resume=None)
    paths = outcome.payload["paths"]
    assert PrivacyCard.from_json(Path(paths["card"]).read_text(encoding="utf-8")).run == run_name(plan)
    assert outcome.payload["privacy"]["flavour"] == "none"
    told = dict(outcome.facts)
    assert told["privacy"] == "Nothing in this run is differentially private."
    assert told["card"] == paths["card"]
    if writable:
        assert told["report"] == paths["report"]
        check_page(Path(paths["report"]).read_text(encoding="utf-8"))
    else:
        assert "report" not in paths
        assert (
            told["report"]
            == f"not written (No space left on device); make room, then 'migrafed report {paths['folder']}'"
        )


def no_room(_: DeployedResult) -> Path:
    raise OSError(28, "No space left on device")

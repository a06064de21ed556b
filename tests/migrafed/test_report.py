"""The report page: the same bytes for the same run, honest words, every text escaped, a table under every figure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from migrafed.reports.forecast import render, write_report
from migrafed.reports.privacy import release_tables, rounded_up, shown_of
from migrafed.reports.skill import headline_of, skill_of
from migrafed.reports.wording import compact, number, percent, signed
from privacy.card import ReleasedObject
from simulations.results import Comparison, RunResult
from simulations.run_tables import MODEL
from tests.cards import count_promise, holder_card, private_card, window_card

MakeRun = Callable[..., Path]


@pytest.fixture(scope="module")
def run(make_run: MakeRun) -> RunResult:
    return RunResult.read(make_run())


@pytest.fixture(scope="module")
def page(run: RunResult) -> str:
    return render(run)


class _Outline(HTMLParser):
    """Ids, addresses, tags and unclosed elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(value or "")
            if key in ("href", "src", "xlink:href"):
                self.links.append(value or "")


def outline(page: str) -> _Outline:
    parsed = _Outline()
    parsed.feed(page)
    return parsed


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(page: str, run: RunResult, tmp_path: Path) -> None:
    """Another process, folder, hash seed, time zone and matplotlib configuration change nothing."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(run.folder, copy)
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nfont.size: 30\nsvg.fonttype: path\n", encoding="utf-8")
    code = f"from migrafed.__main__ import main; raise SystemExit(main(['report', {str(copy)!r}, '--json']))"
    settings = {
        "PYTHONHASHSEED": "77",
        "TZ": "Asia/Tokyo",
        "MATPLOTLIBRC": str(tmp_path),
        "MPLCONFIGDIR": str(tmp_path),
    }
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | settings, stdout=subprocess.DEVNULL)
    assert (copy / "report.html").read_text(encoding="utf-8") == page


@pytest.mark.slow
def test_writing_is_whole_and_repeatable(run: RunResult) -> None:
    """Rebuilding replaces the report by the same bytes and leaves nothing else."""
    first = write_report(run).read_bytes()
    files = sorted(path.name for path in run.folder.iterdir())
    assert write_report(run).read_bytes() == first
    assert sorted(path.name for path in run.folder.iterdir()) == files


def test_nothing_leaves_the_page(page: str) -> None:
    """No script, no address but anchors and namespaces, and a policy that forbids the rest."""
    parsed = outline(page)
    assert "script" not in parsed.tags
    assert all(link.startswith("#") or link == "data:," for link in parsed.links)
    assert set(re.findall(r"https?://[^\"' )]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in page
    assert len(page) < 1_000_000


def test_every_figure_can_be_read_aloud_and_counted(page: str) -> None:
    """Each drawing has a title, a description and its numbers in a table; ids are unique; anchors lead somewhere."""
    parsed = outline(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == 6 + 6 + 3  # skill, ranking, flows, horizon, decile, coverage; six pairs; three with parts
    for figure in figures:
        assert re.search(r"<svg[^>]* role=\"img\" aria-labelledby=", figure)
        assert re.search(r"<title id=[^>]*>[^<]+</title>", figure)
        assert re.search(r"<desc id=[^>]*>[^<]+</desc>", figure)
        assert "<details>" in figure
        assert figure.count("<td>") >= 4


def test_colours_follow_the_page(page: str) -> None:
    """Drawings name no colour of their own, so a dark screen and paper get the right ones."""
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert "var(--federated)" in drawings
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawings)) <= set()


def test_what_the_page_must_say(page: str) -> None:
    """The privacy statement, the warning about the measure, the caution about homophily, and the facts of the run."""
    for words in (
        "Nothing in this run is differentially private", "no differential privacy", "No noise was added.",
        "intention, not migration",
        "h above 1 is partly mechanical", "6f1c" * 16, "migrafed simulate plans/demo.toml --seed 0", "torch 2.13.0",
        "yearly season is switched off", "north", "south", "0.881", "Before and after the break",
    ):  # fmt: skip
        assert words in page
    assert "anonym" not in page.lower()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("trips", "Trips are not job queries"),
        ("device visits", "Device visits are not"),
        ("job-query intention", "not where they go"),
    ],
)
def test_the_measure_is_explained(run: RunResult, measure: str, words: str) -> None:
    """Whoever reads the page learns what was counted, and what that does not show."""
    told = replace(run, facts=run.facts.model_copy(update={"measure": measure}))
    assert words in render(told)


@pytest.mark.parametrize(
    ("difference", "lo", "hi", "verdict", "words"),
    [
        (-0.02, -0.03, -0.01, "better", "forecasts better than"),
        (0.02, 0.01, 0.03, "worse", "forecasts worse than"),
        (-0.02, -0.05, 0.01, "open", "is not shown to forecast better than"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_headline_follows_the_interval(
    run: RunResult, difference: float, lo: float, hi: float, verdict: str, words: str, turned: bool
) -> None:
    """Better only if the whole interval says so, whichever of the two models is named first."""
    names = (f"{MODEL}, federated (weights+margins)", "residual network with embeddings")
    numbers = {"difference": difference, "lo": lo, "hi": hi}
    if turned:
        names, numbers = names[::-1], {"difference": -difference, "lo": -hi, "hi": -lo}
    item = Comparison(model_a=names[0], model_b=names[1], metric="rmse", scale="log1p", **numbers)
    told = replace(run, facts=run.facts.model_copy(update={"comparisons": (item,)}))
    headline = headline_of(told, skill_of(told))
    assert (headline.verdict, words in headline.sentence) == (verdict, True)


def test_no_interval_no_claim(run: RunResult) -> None:
    """Without a comparison on the primary error, a lower error alone is not called better."""
    other = run.facts.comparisons[0].model_copy(update={"scale": "raw"})
    told = replace(run, facts=run.facts.model_copy(update={"comparisons": (other,)}))
    assert headline_of(told, skill_of(told)).verdict == "open"


def test_the_skill_table_is_the_metrics(run: RunResult) -> None:
    """Mean and deviation over seeds; the mean over holders; the model spoken of is the last of the plan's shares."""
    skill = skill_of(run)
    assert skill.main is not None
    assert skill.main.share == "weights+margins"
    spread = skill.main.errors["log1p", "rmse"]
    assert spread.mean == pytest.approx(0.372 * 1.001)
    assert spread.sd == pytest.approx(0.372 * 0.002 / 2**0.5)
    alone = {row.holder: row for row in skill.rows if row.scope == "alone"}
    mean = (alone["north"].errors["log1p", "mae"].mean + alone["south"].errors["log1p", "mae"].mean) / 2
    assert alone["mean"].errors["log1p", "mae"].mean == pytest.approx(mean)
    assert not alone["north"].comparable
    best = skill.best("baseline")
    assert best is not None
    assert best.label == "residual network with embeddings"


def test_a_small_run_has_a_report(make_run: MakeRun, run: RunResult) -> None:
    """One step ahead, one pair, one seed, no parts, no baselines, no homophily: said, not crashed."""
    metrics = run.metrics[
        (run.metrics["scope"] == "pooled") & (run.metrics["slice"] == "all") & (run.metrics["seed"] == 0)
    ]
    metrics = metrics[metrics["scale"] == "log1p"].assign(coverage=float("nan"))
    forecasts = run.forecasts[run.forecasts["unique_id"] == "R00→R01"].groupby("cutoff").head(1)
    replaced = {"metrics": metrics, "forecasts": forecasts, "parts": run.parts.head(0), "flows": run.flows.head(0)}
    folder = make_run(
        names=tuple("ABCDEFG"), replaced=replaced, homophily={}, comparisons=(), shares=("weights",), notes=()
    )
    page = render(RunResult.read(folder))
    assert "No simple baseline was run" in page
    assert "The run wrote no parts." in page
    assert "The run measured no homophily." in page
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower().replace("finance", "")


def test_forecasts_are_drawn_without_overlap(run: RunResult, page: str) -> None:
    """Each day is forecast once on the drawing, though the run forecasts it from several days."""
    table = re.search(r'<figure[^>]*id="fig-forecast-1".*?</figure>', page, re.DOTALL)
    assert table is not None
    days = re.findall(r'<th scope="row">(\d{4}-\d\d-\d\d)</th>', table.group())
    assert len(days) == len(set(days)) == 49
    assert run.forecasts.groupby("unique_id")["ds"].count().max() > 49


def test_numbers_are_written_alike() -> None:
    """Four digits, grouped thousands, a true minus sign, a dash for nothing."""
    assert [number(value) for value in (0.37159, 3351.2, 0.0, float("nan"), -2.0, 1234567.0, 1e-12)] == [
        "0.3716", "3,351", "0", "–", "−2.000", "1,234,567", "1.000e−12",
    ]  # fmt: skip
    assert (signed(0.5), signed(-0.5), percent(0.9049), compact(1_200_000), compact(-1500)) == (
        "+0.50", "−0.50", "90.5 %", "1.2M", "−1.5k",
    )  # fmt: skip


@pytest.mark.slow
def test_metrics_without_the_primary_error(run: RunResult) -> None:
    """A run whose primary scale was not measured says that there is nothing to compare."""
    raw: pd.DataFrame = run.metrics[run.metrics["scale"] == "raw"]
    told = replace(run, metrics=raw)
    assert headline_of(told, skill_of(told)).verdict == "none"
    assert "nothing to compare" in render(told)


PROMISE = "epsilon 1.999, delta 1e-06 per person and holder"
WINDOW_PROMISE = "epsilon 1.997, delta 1e-06 per window, which is not a person"


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)
    assert found is not None
    return found.group()


def captions(page: str, *names: str) -> list[str]:
    found = [re.search(rf'id="{name}".*?<figcaption>(.*?)</figcaption>', page, re.DOTALL) for name in names]
    return [each.group(1) for each in found if each is not None]


@pytest.fixture(scope="module")
def private(run: RunResult) -> str:
    return render(replace(run, card=private_card()))


@pytest.fixture(scope="module")
def windows(run: RunResult) -> str:
    return render(replace(run, card=window_card()))


@pytest.mark.slow
def test_drawings_of_a_private_run_say_what_they_show(private: str) -> None:
    """Epsilon, delta and unit stand in each caption; no value is called true."""
    told = captions(private, "fig-forecast-1", "fig-parts-1", "fig-flows", "fig-ranking")
    assert len(told) == 4
    assert all(f"Noised values: {PROMISE}." in caption for caption in told)
    assert "released (noised)" in private
    assert "released values inside" in private
    assert not re.search(
        r"\btrue\b", re.sub(r"<style>.*?</style>|<[^>]*>", "", private, flags=re.DOTALL), re.IGNORECASE
    )
    assert "Errors were measured against released (noised) values" in private


def test_the_privacy_section_is_the_card(private: str) -> None:
    """Holders with what they spent, the mechanism, what was released, checks, parties, questions; all from the card."""
    told = section(private, "privacy")
    card = private_card()
    for words in (
        card.headline, card.across_holders, "north", "south", "1.999", "3.000", "epsilon 0.6007 of epsilon 3", "2026",
        "stddev 6.314", "0.9421 for one single count", "never in its place", "assumed of the counts, not enforced",
        "inflow: once per (destination, step)", "model weights", "1,836", "7,344", "noise of a step", "0.00110",
        "1 of 1 check passed", "it may infer much", "No noise was added.", "How large is epsilon?", "a" * 64, "c" * 64,
    ):  # fmt: skip
        assert words in told
    assert "A window is not a person" not in told
    assert told.count("The promise of north, south") == 1


@pytest.mark.slow
def test_a_window_is_never_a_person(windows: str) -> None:
    """The page says so in captions, table and heading, and shows what a person is promised, also if that is nothing."""
    told = section(windows, "privacy")
    for words in ("A window is not a person", "window (not a person)", "74.49", "15.75", "no finite one", "0.2162"):
        assert words in told
    assert all(WINDOW_PROMISE in caption for caption in captions(windows, "fig-forecast-1", "fig-flows"))
    assert "Raw values; noise is in the model" in windows
    assert "true (raw)" in windows
    assert "Errors were measured against raw values" in windows


def test_an_epsilon_is_never_rounded_down() -> None:
    assert [rounded_up(value) for value in (1.99834, 1.9980001, 2.0, 0.12341, 123.41, 1e-9)] == [
        "1.999", "1.999", "2.000", "0.1235", "123.5", "1.000e−09",
    ]  # fmt: skip


def drowned(page: str) -> list[bool]:
    return [" Grey: " in caption for caption in captions(page, *(f"fig-forecast-{n}" for n in range(1, 7)))]


@pytest.mark.slow
def test_what_noise_drowns_is_grey(run: RunResult, private: str) -> None:
    """Pairs whose mean is below three noise standard deviations lose their colour, with the reason beside them."""
    assert drowned(private) == [False] * 6
    loud = private_card().shown.model_copy(update={"noise_stddev": 800.0})
    page = render(replace(run, card=private_card(shown=loud)))
    assert drowned(page) == [False, False, False, True, True, True]  # means about 8300, 4150, 2770, 2080, 1660, 1380
    assert "below 3 noise standard deviations (2,400)" in page
    faded, clear = (re.search(rf'id="fig-forecast-{n}".*?</svg>', page, re.DOTALL) for n in (6, 1))
    assert faded is not None
    assert clear is not None
    assert "var(--federated)" not in faded.group()
    assert "var(--federated)" in clear.group()
    flows = re.search(r'id="fig-flows".*?</figure>', page, re.DOTALL)
    assert flows is not None
    rows = re.findall(r"<td>([\d,.]+)</td><td>(yes|no, drowned by noise)</td>", flows.group())
    assert {word == "yes" for value, word in rows if float(value.replace(",", "")) >= 2400} == {True}
    assert {word == "yes" for value, word in rows if float(value.replace(",", "")) < 2400} == {False}


def test_unknown_noise_is_said(run: RunResult) -> None:
    """Where the scale gives every pair a noise of its own nothing is greyed out, and the caption says why."""
    shown = shown_of(private_card(shown=private_card().shown.model_copy(update={"noise_stddev": None})))
    assert (shown.floor, shown.word) == (0.0, "released")
    assert "none is greyed out" in shown.note


def test_releases_of_several_holders_are_one_line() -> None:
    """A run with twenty holders does not print three lines for each; sizes become ranges."""
    one = ReleasedObject(name="cells", origin="noised release", place="leaves a holder", holder="north", numbers=960,
                         size_bytes=7680, times=1, goes_to="training")  # fmt: skip
    two = one.model_copy(update={"holder": "south", "numbers": 1440, "size_bytes": 11520})
    together = one.model_copy(update={"holder": "all"})
    ((_, leaves, lines),) = release_tables(private_card(released=(one, two, together)))
    assert leaves
    assert [(line.holders, line.numbers, line.size) for line in lines] == [
        ("2 holders", "960 – 1,440", "7,680 – 11,520"), ("all", "960", "7,680"),
    ]  # fmt: skip


@pytest.mark.slow
def test_words_of_a_card_are_escaped(run: RunResult) -> None:
    """Holders name themselves and their periods: markup in them stays text."""
    bad = "<script>alert(1)</script>"
    holder = holder_card(bad, count_promise(unit=bad, mechanism=bad, contribution_rules=(bad,)))
    page = render(
        replace(run, card=private_card(holders=(holder,), headline=bad, not_promised=(bad,), across_holders=bad))
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 8

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
from migrafed.reports.skill import headline_of, skill_of
from migrafed.reports.wording import compact, number, percent, signed
from simulations.results import Comparison, RunResult
from simulations.run_tables import MODEL

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
        "No differential privacy in this run", "coordinator saw plain updates", "totals per region",
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
    assert "totals per region" not in page
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

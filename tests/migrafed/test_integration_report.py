"""The page of an integration run: same bytes, honest words, small cells hidden, every text escaped, tables behind."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from migrafed.__main__ import main
from migrafed.reports.integration import headline_of, render_integration
from migrafed.reports.integration_study import FAILS, HOLDS, OPEN, study_table
from simulations.call_results import IntegrationResult, IntegrationTables, OperatorFacts, empty_table
from tests.call_runs import fabricated_tables, write_fabricated
from tests.cards import private_card

pytestmark = pytest.mark.slow  # a page of drawings takes seconds
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "]]><!--",
    "東京都",
    "$x_1$ & y",
)


@pytest.fixture(scope="module")
def tables() -> IntegrationTables:
    return fabricated_tables()


@pytest.fixture(scope="module")
def run(tables: IntegrationTables, tmp_path_factory: pytest.TempPathFactory) -> IntegrationResult:
    return IntegrationResult.read(write_fabricated(tmp_path_factory.mktemp("calls") / "run", tables))


@pytest.fixture(scope="module")
def small(tables: IntegrationTables) -> IntegrationTables:
    """A few features, one map, one model of leaving: drawings take most of a page's time."""
    few = ["avg_radius", "degree"]
    weekly = tables.trajectories[tables.trajectories["axis"] == "week"]
    return dataclasses.replace(
        tables,
        trajectories=weekly[weekly["feature"].isin(few)],
        verdicts=tables.verdicts[tables.verdicts["feature"].isin(few)],
        maps=tables.maps[tables.maps["group"] == "new"],
        churn=tables.churn[tables.churn["model"] == "random forest"],
    )


@pytest.fixture(scope="module")
def page(run: IntegrationResult) -> str:
    return render_integration(run)


def text_of(page: str) -> str:
    """What a reader sees, without the drawings."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL))


def test_the_same_run_gives_the_same_bytes(page: str, run: IntegrationResult, tmp_path: Path) -> None:
    """By the command line, in another process and folder, with another hash seed, time zone and matplotlib settings."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(run.folder, copy)
    (tmp_path / "matplotlibrc").write_text("axes.facecolor: red\nfont.size: 30\nsvg.fonttype: path\n", encoding="utf-8")
    code = f"from migrafed.__main__ import main; raise SystemExit(main(['report', {str(copy)!r}, '--json']))"
    settings = {"PYTHONHASHSEED": "77", "TZ": "America/Lima", "MATPLOTLIBRC": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | settings, stdout=subprocess.DEVNULL)
    assert (copy / "report.html").read_text(encoding="utf-8") == page


def test_nothing_leaves_the_page(page: str) -> None:
    assert "<script" not in page
    assert "default-src 'none'" in page
    links = set(re.findall(r"(?:href|src)=\"([^\"]*)\"", page))
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert set(re.findall(r"https?://[^\"' )<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(page) < 1_000_000


def test_every_figure_can_be_read_aloud_and_counted(page: str) -> None:
    """Each drawing has a title, a description and its numbers; ids are unique; anchors lead somewhere."""
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"href=\"#([^\"]+)\"", page)) <= set(ids)
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == 4 + 10 + 3 + 10 + 1 + 3 + 1  # maps, weeks, fixed calls, days, called local, churn, operators
    for figure in figures:
        assert re.search(r"<svg[^>]* role=\"img\" aria-labelledby=", figure)
        assert re.search(r"<title id=[^>]*>[^<]+</title>", figure)
        assert re.search(r"<desc id=[^>]*>[^<]+</desc>", figure)
        assert figure.count("<td>") >= 4
    drawings = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}\b", drawings)  # colours are the page's own, so dark screens and paper are right


def test_every_caption_says_synthetic_where_the_data_are_made_up(
    page: str, small: IntegrationTables, tmp_path: Path
) -> None:
    main_part = page[page.index("<main>") : page.index('<section id="privacy"')]
    captions = re.findall(r"<(?:fig)?caption>(.*?)</", main_part)
    captions = [caption for caption in captions if not caption.startswith(_TITLES)]
    assert len(captions) > 40
    assert all(caption.startswith("Synthetic data. ") for caption in captions)
    real = IntegrationResult.read(write_fabricated(tmp_path / "run", small, synthetic=False))
    assert "ynthetic" not in text_of(render_integration(real))


_TITLES = ("Where ", "Contacts ", "Diversity ", "Number ", "Mean ", "Distance ", "Who ", "Early ", "F1 ")
"""Tables inside a figure bear its title; the figure's own caption says the rest."""


def test_small_cells_are_grey_and_told_only_of_made_up_data(
    page: str, small: IntegrationTables, tmp_path: Path
) -> None:
    assert '<td class="few">31</td>' in page
    real = render_integration(IntegrationResult.read(write_fabricated(tmp_path / "run", small, synthetic=False)))
    groups = real[real.index('id="groups"') : real.index('id="maps"')]
    assert '<td class="few">&lt; 50</td>' in groups
    assert ">31<" not in groups


def test_confounds_silence_and_placebo_are_printed(page: str) -> None:
    words = text_of(page)
    for told in (
        "Mid-Autumn Festival", "18 September 2016, a Sunday, was a working day", "University term",
        "eve of National Day",
        "q = 1.48 % [1.04 %, 2.09 %]", "32 of the 700 new are settled migrants", "Planted truth: 662 of the 700",
        "survives rarefaction; placebo locals do not show it", "Only what could be recovered",
    ):  # fmt: skip
        assert told in words, told
    assert "anonym" not in words.lower()


def test_paper_is_said_of_recovered_findings_only(run: IntegrationResult) -> None:
    """Eleven findings; levels are this run's own, except the one F1; the fabricated run shows each of them."""
    table = study_table(run)
    assert len(table.rows) == 11
    reported = " ".join(row[0] for row in table.rows)
    assert re.findall(r"\d[\d.]*", reported) == ["1", "0.82"]  # "F1", and its value
    assert {row[2] for row in table.rows} == {HOLDS, "context only: other data, other features"}


def test_what_is_not_found_is_said_to_be_not_found(tables: IntegrationTables, tmp_path: Path) -> None:
    """A falling share, locals in the centre, and intervals that overlap are not called as reported."""
    turned = tables.as_local.assign(fraction=tables.as_local["fraction"].where(tables.as_local["week"] != 4, 0.01))
    turned["lo"] = 0.0
    swapped = tables.maps.assign(group=tables.maps["group"].replace({"local": "settled", "settled": "local"}))
    wide = tables.trajectories.assign(lo=tables.trajectories["mean"] - 100.0, hi=tables.trajectories["mean"] + 100.0)
    changed = dataclasses.replace(tables, as_local=turned, maps=swapped, trajectories=wide)
    rows = {row[0]: row for row in study_table(IntegrationResult.read(write_fabricated(tmp_path / "r", changed))).rows}
    assert rows["The share of new migrants called local rises over the weeks"][2] == FAILS
    assert rows["Locals live at the edge, settled and new migrants in the centre"][2] == FAILS
    assert rows["Settled migrants move in a larger radius than locals"][2] == OPEN


def test_parts_that_were_not_done_are_said_to_be_missing(tables: IntegrationTables, tmp_path: Path) -> None:
    """A run of nothing but groups renders too."""
    bare = IntegrationTables(**{field.name: empty_table(field.name) for field in dataclasses.fields(IntegrationTables)})
    page = render_integration(
        IntegrationResult.read(write_fabricated(tmp_path / "bare", bare, silence=None, confounds=(), notes=()))
    )
    for told in ("drew no maps", "drew no trajectories", "made no predictions", "predicted no leaving", "no verdicts",
                 "did not compare operators"):  # fmt: skip
        assert told in page
    assert "<figure" not in page


def test_withheld_means_are_drawn_as_nothing(small: IntegrationTables, tmp_path: Path) -> None:
    """Groups too small to be told leave a figure that says so, and no number."""
    none = small.trajectories.assign(mean=float("nan"), lo=float("nan"), hi=float("nan"), persons=12)
    maps = small.maps.assign(persons=float("nan"), log_odds=float("nan"))
    changed = dataclasses.replace(small, trajectories=none, maps=maps, churn=empty_table("churn"))
    page = render_integration(IntegrationResult.read(write_fabricated(tmp_path / "run", changed)))
    assert page.count("too few persons</text>") == 2 + 1  # in weeks, and with a fixed number of calls
    assert "without any square that holds enough persons" in page


def test_hostile_texts_are_escaped(small: IntegrationTables, tmp_path: Path) -> None:
    operators = tuple(OperatorFacts(name=name, subscribers=1, calls=1, dropped={HOSTILE[0]: 1}) for name in HOSTILE)
    names = dict(zip(("north", "south", "west"), HOSTILE, strict=False))
    changed = dataclasses.replace(
        small,
        groups=small.groups.assign(operator=small.groups["operator"].replace(names)),
        federation=small.federation.assign(
            operator=small.federation["operator"].replace(names),
            setting=small.federation["setting"].replace({"pooled": HOSTILE[5]}),
        ),
        churn=small.churn.assign(model=small.churn["model"].replace({"random forest": HOSTILE[1]})),
    )
    folder = write_fabricated(
        tmp_path / "run", changed, operators=operators, notes=HOSTILE, command=HOSTILE[1], confounds=HOSTILE
    )
    page = render_integration(IntegrationResult.read(folder))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "{{ 7 * 7 }}" in page
    assert "東京都" in page


def test_the_privacy_card_is_part_of_the_page(small: IntegrationTables, tmp_path: Path) -> None:
    page = render_integration(IntegrationResult.read(write_fabricated(tmp_path / "run", small, private_card())))
    assert "What each holder promises, and its budget" in page
    assert "epsilon" in page[page.index('class="about"') :][:400]


def test_the_headline_counts_what_intervals_allow(run: IntegrationResult) -> None:
    sentence, detail = headline_of(run)
    assert sentence == "New migrants move towards locals in 8 of 9 features, and away from them in 1."
    assert "A 3, B 5, C 1, none 1" in detail
    few = dataclasses.replace(run, verdicts=run.verdicts.assign(d_nl_lo=-1e9, d_nl_hi=1e9))
    assert headline_of(few)[0] == "New migrants move towards locals in 0 of 9 features."


def test_the_command_reads_the_task_of_the_folder(
    small: IntegrationTables, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`migrafed report` finds out what kind of run it is; a damaged folder is refused with exit code 2."""
    folder = write_fabricated(tmp_path / "run", small)
    assert main(["report", str(folder)]) == 0
    assert "migrant integration" in (folder / "report.html").read_text(encoding="utf-8")
    assert not list(folder.glob(".*.part"))
    told = capsys.readouterr().out
    assert "2 of 2 features" in told
    assert "synthetic" in told
    table = pd.read_parquet(folder / "verdicts.parquet")
    table.assign(verdict="A").to_parquet(folder / "verdicts.parquet")
    assert main(["report", str(folder)]) == 2

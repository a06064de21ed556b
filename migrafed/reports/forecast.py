"""The report of a forecasting run: one file, made from the run folder alone.

`render` is a pure function of the folder's content: the same run gives the same bytes, whoever builds it, wherever. The
page has no script, asks no other host for anything and says so in its own content-security policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from migrafed.reports.cities import flow_picture, ranking_picture
from migrafed.reports.figures import break_table, coverage_picture, decile_picture, horizon_picture, skill_picture
from migrafed.reports.privacy import privacy_context, scored_word, scored_words, shown_of
from migrafed.reports.series import forecast_pictures, parts_pictures
from migrafed.reports.skill import ERRORS, EXTRAS, METRIC_WORDS, SCALE_WORDS, Skill, SkillRow, headline_of, skill_of
from migrafed.reports.wording import MISSING, count_of, number, percent
from privacy.card import PrivacyCard
from protocol.files import write_whole
from server.run_folder import REPORT_FILE
from simulations.results import RunResult

_HERE = Path(__file__).parent
_MEASURES = {
    "job-query intention": (
        "Intention is not migration",
        "The counts are job queries: what people look for, not where they go. A study of Moscow and St Petersburg "
        "found no evidence that more searching means more relocation. Read every forecast as one of search intention.",
    ),
    "synthetic job-query intention": (
        "A made-up world",
        "The counts come from a generator that imitates job queries. They test the machinery; they say nothing about "
        "any real place. And even real job queries are intention, not migration.",
    ),
    "trips": (
        "Trips are not job queries",
        "The counts are trips between regions. They test the machinery and the forecasting skill, and support no claim "
        "about the intention to migrate.",
    ),
    "device visits": (
        "Device visits are not job queries",
        "The counts are visits of devices to regions. They test the machinery and the forecasting skill, and support "
        "no claim about the intention to migrate.",
    ),
}


@dataclass(frozen=True)
class Line:
    """One row of the skill table as it is printed."""

    label: str
    colour: str
    kind: str
    errors: tuple[str, ...]
    extras: tuple[str, ...]
    best: bool


def write_report(run: RunResult) -> Path:
    """Build `report.html` in the folder of a finished run, and return its path."""
    page = render(run)
    path = run.folder / REPORT_FILE
    write_whole(path, lambda part: part.write_text(page, encoding="utf-8", newline="\n"))
    return path


def render(run: RunResult) -> str:
    """The whole page; every text that comes from the run is escaped."""
    environment = page_environment()
    skill, shown = skill_of(run), shown_of(run.card)
    columns = [key for key in ERRORS if any(key in row.errors for row in skill.rows)]
    known = _MEASURES.get(run.facts.measure)
    measure = known or ("What is counted", f"The counts are: {run.facts.measure}. Intention is not migration.")
    return environment.get_template("page.html").render(
        css=style_sheet(),
        run=run,
        card=run.card,
        privacy=privacy_context(run.card),
        shown=shown,
        scored=scored_words(run.card),
        facts=run.facts,
        headline=headline_of(run, skill),
        key_figures=_key_figures(skill, run.card),
        columns=[
            (METRIC_WORDS[metric], SCALE_WORDS[scale], (scale, metric) == skill.primary) for scale, metric in columns
        ],
        lines=[_line(row, columns, skill) for row in skill.rows if row.comparable],
        holder_lines=[_line(row, columns, skill) for row in skill.rows if not row.comparable],
        skill_picture=skill_picture(skill),
        forecasts=forecast_pictures(run, shown),
        parts=parts_pictures(run, shown),
        ranking=ranking_picture(run, shown),
        flows=flow_picture(run, shown),
        errors=[
            p
            for p in (
                horizon_picture(run, skill),
                decile_picture(run, skill),
                coverage_picture(run, skill, word=scored_word(run.card)),
            )
            if p
        ],
        breaks=break_table(run, skill),
        measure=measure,
        counts={"regions": count_of(len(run.regions), "region"), "holders": count_of(len(run.facts.holders), "holder")},
    )


def page_environment() -> Environment:
    """The templates of this package: everything escaped, an unknown name refused."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "figure_or_dash": _figure_or_dash,
    }
    return environment


def _figure_or_dash(value: float | None) -> str:
    """The figure of a check: very large and very small ones as powers of ten."""
    if value is None:
        return MISSING
    plain = value == 0 or 1e-4 <= abs(value) < 1e6
    return number(value, digits=3) if plain else f"{value:.1e}".replace("-", "−")


def style_sheet() -> Markup:
    """The style sheet of every page."""
    return Markup((_HERE / "page.css").read_text(encoding="utf-8"))  # noqa: S704 -- a file of this package


def _line(row: SkillRow, columns: list[tuple[str, str]], skill: Skill) -> Line:
    rivals = [skill.best(scope) for scope in ("federated", "pooled", "alone", "baseline")]
    best = min((rival for rival in rivals if rival), key=skill.primary_of, default=None)
    return Line(
        label=row.label,
        colour=row.colour,
        kind=row.scope,
        errors=tuple(str(row.errors[key]) if key in row.errors else MISSING for key in columns),
        extras=tuple(
            percent(row.extras[name].mean) if name == "coverage" else number(row.extras[name].mean, digits=3)
            for name in EXTRAS
        ),
        best=row is best,
    )


def _key_figures(skill: Skill, card: PrivacyCard) -> list[tuple[str, str]]:
    """Three or four numbers for the top of the page: name and value."""
    main, pooled, rival = skill.main, skill.best("pooled"), skill.best("baseline")
    figures = []
    metric = f"{METRIC_WORDS[skill.primary[1]]}, {SCALE_WORDS[skill.primary[0]]}"
    if main is not None:
        figures.append((f"{metric}: {main.scope}", number(skill.primary_of(main))))
    if rival is not None:
        figures.append(("best simple baseline", number(skill.primary_of(rival))))
    if main is not None and pooled is not None and main.scope == "federated" and skill.primary_of(pooled) > 0:
        cost = skill.primary_of(main) / skill.primary_of(pooled) - 1
        figures.append(("cost of federating, against pooled", f"{'+' if cost > 0 else ''}{percent(cost)}"))
    if main is not None:
        figures.append((f"{scored_word(card)} values inside 90 % intervals", percent(main.extras["coverage"].mean)))
    return figures

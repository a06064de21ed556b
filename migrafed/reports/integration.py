"""The report of an integration run: one file, made from the run folder alone.

`render_integration` is a pure function of the folder's content: the same run gives the same bytes, whoever builds it,
wherever. The page has no script, asks no other host for anything and says so in its own content-security policy. It
shows groups, never a person.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from integration.analysis.conclusions import conclusions
from migrafed.reports.forecast import page_environment, style_sheet
from migrafed.reports.integration_curves import as_local_picture, trajectory_pictures
from migrafed.reports.integration_maps import map_pictures
from migrafed.reports.integration_scores import (
    METRICS,
    TASK_WORDS,
    cell,
    churn_pictures,
    churn_table,
    class_table,
    confusion_table,
    error_table,
    federation_picture,
    other_facts,
    score_table,
)
from migrafed.reports.integration_study import called_local, headline_f1, study_table, towards_and_away
from migrafed.reports.integration_words import FEATURE_WORDS, GROUP_WORDS, VERDICT_WORDS, around, said
from migrafed.reports.privacy import privacy_context, shown_of
from migrafed.reports.svg import Table
from migrafed.reports.wording import MISSING, count_of, percent, signed
from protocol.files import write_whole
from server.run_folder import REPORT_FILE
from simulations.call_results import IntegrationResult

PUSH_WORDS = {
    "none": "nothing",
    "L0": "every count of foreign contacts (L0; made-up data only)",
    "L1": "counts of foreign contacts, where there are enough of them (L1)",
    "L2": "counts of foreign contacts with noise (L2)",
}
Cell = tuple[str, bool]
"""Text, and whether too few persons are behind it."""


def write_integration_report(run: IntegrationResult) -> Path:
    """Build `report.html` in the folder of a finished run, and return its path."""
    page = render_integration(run)
    path = run.folder / REPORT_FILE
    write_whole(path, lambda part: part.write_text(page, encoding="utf-8", newline="\n"))
    return path


def render_integration(run: IntegrationResult) -> str:
    """The whole page; every text that comes from the run is escaped."""
    return page_environment().get_template("integration.html").render(
        css=style_sheet(),
        run=run,
        facts=run.facts,
        card=run.card,
        privacy=privacy_context(run.card),
        shown=shown_of(run.card),
        said=lambda caption: said(run.facts, caption),
        headline=headline_of(run),
        key_figures=list(_key_figures(run)),
        study=study_table(run),
        group_columns=group_columns(run),
        group_rows=list(group_rows(run)),
        silence=silence_words(run),
        maps=map_pictures(run),
        trajectories=trajectory_pictures(run),
        rarefied=trajectory_pictures(run, variant="rarefied"),
        by_days=trajectory_pictures(run, axis="days since arrival"),
        verdict_words=list(VERDICT_WORDS.values()),
        verdicts=verdict_table(run, "new"),
        placebo=verdict_table(run, "placebo"),
        conclusions=conclusion_table(run),
        panels=panel_table(run),
        scores=_score_tables(run),
        classes=class_table(run),
        confusion=confusion_table(run),
        as_local=as_local_picture(run),
        churn=churn_pictures(run),
        churn_table=churn_table(run),
        federation=federation_picture(run),
        errors=error_table(run),
        other=other_facts(run),
        pushes=PUSH_WORDS.get(run.facts.pushes, run.facts.pushes),
    )  # fmt: skip


def headline_of(run: IntegrationResult) -> tuple[str, str]:
    """The result in a sentence, with its detail, good news or not."""
    towards, away, asked = towards_and_away(run)
    if not asked:
        return "This run holds no verdicts.", "There are no differences between weeks to tell."
    sentence = f"New migrants move towards locals in {towards} of {asked} features"
    sentence += f", and away from them in {away}." if away else "."
    found = run.verdicts[(run.verdicts["newcomers"] == "new") & (run.verdicts["variant"] == "plain")]
    counts = [f"{letter} {int((found['verdict'] == letter).sum())}" for letter in ("A", "B", "C", "none")]
    detail = (
        f"Verdicts over {count_of(len(found), 'feature')}: {', '.join(counts)}. {_worth(conclusions(run.verdicts))}"
    )
    return sentence, detail


def _worth(found: pd.DataFrame) -> str:
    """How many verdicts stand when the number of calls is fixed and when placebo locals are asked."""
    survive, rarefied = int((found["survives"] == "yes").sum()), int((found["survives"] != "").sum())
    alike, asked = int((found["specific"] == "no").sum()), int((found["specific"] != "").sum())
    return (
        f"{survive} of the {rarefied} that can be tested with a fixed number of calls survive it; in {alike} of "
        f"{asked} placebo locals, who only look new, move alike."
    )


def _key_figures(run: IntegrationResult) -> Iterator[tuple[str, str]]:
    whole = run.groups[(run.groups["operator"] == "") & (run.groups["week"] == 0)].set_index("group")["persons"]
    for group in ("local", "settled", "new"):
        if group in whole.index:
            yield GROUP_WORDS[group], _persons(float(whole.loc[group]), run)[0]
    if (found := headline_f1(run)) is not None:
        yield "F1, settled migrants or locals", f"{found[0]:.3f}"
    if len(shares := called_local(run)) > 1:
        yield (
            "of the new called local, first and last week",
            f"{percent(shares[0], decimals=0)} → {percent(shares[-1], decimals=0)}",
        )


def group_columns(run: IntegrationResult) -> list[str]:
    """Heads of the table of groups, after group and operator."""
    weeks = sorted(int(week) for week in run.groups["week"].unique())
    return ["all weeks" if week == 0 else f"week {week}" for week in weeks]


def group_rows(run: IntegrationResult) -> Iterator[tuple[str, str, list[Cell]]]:
    """Group, operator and persons of each week; cells of few persons are marked."""
    weeks = sorted(int(week) for week in run.groups["week"].unique())
    persons = {
        (str(row["group"]), str(row["operator"]), int(row["week"])): float(row["persons"])
        for _, row in run.groups.iterrows()
    }
    for group in GROUP_WORDS:
        operators = sorted({operator for name, operator, _ in persons if name == group})
        for operator in operators:
            cells = [_persons(persons.get((group, operator, week), float("nan")), run) for week in weeks]
            yield GROUP_WORDS[group], operator or "all operators", cells


def _persons(persons: float, run: IntegrationResult) -> Cell:
    """A number of persons; below the smallest cell it is grey, and not told unless the calls are made up."""
    least = run.facts.smallest_cell
    if math.isnan(persons):  # missing: held back by the writer, or nobody counted
        return MISSING, True
    if persons < least and not run.facts.synthetic:
        return f"< {least}", True
    return f"{persons:,.0f}", persons < least


def silence_words(run: IntegrationResult) -> list[str]:
    """What silence alone does to the group "new", in sentences."""
    found = run.facts.silence
    if found is None:
        return []
    words = []
    if found.share is not None and found.low is not None and found.high is not None:
        q, low, high = (percent(share, decimals=2) for share in (found.share, found.low, found.high))
        asked = f"Of {found.asked:,} settled migrants with calls in all other weeks"
        words.append(f"{asked}, {found.silent:,} were silent in week 3: q = {q} [{low}, {high}].")
    for expected, how in ((found.expected, "from q"), (found.expected_by_placebo, "from placebo locals")):
        if expected is not None and found.new:
            share = percent(min(1.0, expected / found.new), decimals=0)
            words.append(f"Expected {how}: {expected:,.0f} of the {found.new:,} new are settled migrants ({share}).")
    if found.truly_new is not None and found.new:
        share = percent(1 - found.truly_new / found.new, decimals=0)
        words.append(f"Planted truth: {found.truly_new:,} of the {found.new:,} arrived; {share} did not.")
    return words


def verdict_table(run: IntegrationResult, newcomers: str) -> Table | None:
    """Every verdict with the differences it rests on."""
    rows = run.verdicts[run.verdicts["newcomers"] == newcomers]
    if rows.empty:
        return None
    columns = ("Feature", "Verdict", "to settled migrants", "to locals", "settled to locals")
    lines = []
    for _, row in rows.iterrows():
        name = FEATURE_WORDS[str(row["feature"])] + (" · fixed number of calls" if row["variant"] == "rarefied" else "")
        numbers = (around(*(float(row[f"{d}{end}"]) for end in ("", "_lo", "_hi"))) for d in ("d_ns", "d_nl", "d_sl"))
        lines.append((name, str(row["verdict"]), *numbers))
    return Table(columns, tuple(lines))


def conclusion_table(run: IntegrationResult) -> Table | None:
    """What each verdict is worth."""
    if run.verdicts.empty:
        return None
    rows = conclusions(run.verdicts)
    columns = ("Feature", "Verdict", "Rarefied", "Placebo", "Survives", "Specific", "In words")
    return Table(
        columns,
        tuple(
            (FEATURE_WORDS[str(row["feature"])], *(str(row[name]) or MISSING for name in rows.columns[1:6]),
             str(row["statement"]))
            for _, row in rows.iterrows()
        ),
    )  # fmt: skip


def panel_table(run: IntegrationResult) -> Table | None:
    """Change of the new migrants' mean from the first to the last week, with leavers and without."""
    rows = run.trajectories
    rows = rows[(rows["group"] == "new") & (rows["axis"] == "week") & (rows["variant"] == "plain")]
    lines = []
    for feature, part in rows.groupby("feature", sort=False):
        cells = []
        for panel in ("balanced", "unbalanced"):
            means = part[part["panel"] == panel].sort_values("period")
            known = len(means) > 1 and means["mean"].notna().all()
            cells.append(signed(float(means["mean"].iloc[-1] - means["mean"].iloc[0]), digits=3) if known else MISSING)
            cells.append(f"{int(means['persons'].iloc[-1]):,}" if len(means) else MISSING)
        lines.append((FEATURE_WORDS[str(feature)], *cells))
    if not lines or not (rows["panel"] == "unbalanced").any():
        return None
    columns = ("Feature", "Balanced: change", "Persons", "Unbalanced: change", "Persons, last week")
    return Table(columns, tuple(lines))


def _score_tables(run: IntegrationResult) -> dict[str, list[tuple[str, Table]]]:
    """Tables of the tasks: F1 first, the rest behind it."""
    tables: dict[str, list[tuple[str, Table]]] = {"shown": [], "more": []}
    for task in TASK_WORDS:
        metric = "macro f1" if task == "T2" else "f1"
        words = f"{TASK_WORDS[task]}: {'macro F1' if task == 'T2' else 'F1'}"
        if (table := score_table(run, task, metric)) is not None:
            tables["shown"].append((words, table))
        if (table := score_table(run, task, metric, "balanced")) is not None:
            tables["more"].append((f"{words}, classes weighted alike", table))
    for metric in ("precision", "recall", "auc", "ap"):
        if (table := score_table(run, "T1", metric)) is not None:
            tables["more"].append((f"{TASK_WORDS['T1']}: {METRICS[metric]}", table))
    return tables


def groups_in_short(run: IntegrationResult) -> str:
    """Persons of each group of all operators, in one line for the terminal."""
    whole = run.groups[(run.groups["operator"] == "") & (run.groups["week"] == 0)]
    return ", ".join(f"{_persons(float(row['persons']), run)[0]} {row['group']}" for _, row in whole.iterrows())


def score_in_short(run: IntegrationResult) -> str:
    """F1 of settled migrants against locals, in one line for the terminal."""
    found = headline_f1(run)
    return MISSING if found is None else f"F1 {cell(*found)} for settled migrants against locals, week 2"

"""The report of a deployed run: one file, made from the coordinator's run folder alone.

It tells what a coordinator has: rounds, sums, the model and the privacy card. What takes rows (forecasts, errors on a
test span) is not there, and the page says so. Like every report it is a pure function of the folder, has no script and
asks no other host for anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from migrafed.reports.forecast import page_environment, style_sheet
from migrafed.reports.privacy import privacy_context, rounded_up
from migrafed.reports.svg import INK, Picture, Sheet, Table
from migrafed.reports.wording import MISSING, compact, count_of, number, shortened
from privacy.card import PrivacyCard
from protocol.files import write_whole
from server.deployed_facts import DeployedFacts, DeployedResult, StageFigures
from server.run_folder import CARD_FILE, MODEL_FILE, PLAN_FILE, REPORT_FILE, plan_text

STATISTICS = "statistics before training, the same for all stages"
KIND_WORDS = {
    "rounds": "training in rounds",
    "newton": "Newton steps, each from one sum over all holders",
    "groups": "sums over groups",
    "exchange": "sealed mail between holders, which the coordinator carries and cannot read",
}
AGGREGATION_WORDS = {
    "secure": "masked sums",
    "plain": "updates that the coordinator saw",
    "robust": "updates that the coordinator saw, combined robustly",
}
_MARKED = 40
"""Rounds up to which each has a marker of its own."""


@dataclass(frozen=True)
class StageBlock:
    """One stage as the page tells it."""

    name: str
    words: str
    pictures: tuple[Picture, ...]


def write_deployed_report(run: DeployedResult) -> Path:
    """Build `report.html` in the folder of a finished deployed run, and return its path."""
    page = render(run)
    path = run.folder / REPORT_FILE
    write_whole(path, lambda part: part.write_text(page, encoding="utf-8", newline="\n"))
    return path


def render(run: DeployedResult) -> str:
    """The whole page; every text that comes from the run is escaped."""
    facts = run.facts
    return (
        page_environment()
        .get_template("deployed.html")
        .render(
            css=style_sheet(),
            facts=facts,
            card=run.card,
            privacy=privacy_context(run.card),
            private=run.plan.trains_privately,
            counts={"holders": count_of(len(facts.holders), "holder")},
            aggregation=AGGREGATION_WORDS[facts.aggregation],
            promise=_promise_words(run.card),
            key_figures=list(_key_figures(facts)),
            stages=_stage_table(facts),
            blocks=[_block(place, stage) for place, stage in enumerate(facts.stages)],
            sums=_sums_table(facts) if facts.opened else None,
            ledgers=_ledger_table(facts),
            repeated=_repeated(facts),
            files=[(name, facts.files[name]) for name in (MODEL_FILE, CARD_FILE, PLAN_FILE)],
            model_file=MODEL_FILE,
            masks=run.plan.masks,
            plan_text=plan_text(run.plan),
        )
    )


def _key_figures(facts: DeployedFacts) -> Iterator[tuple[str, str]]:
    """Three or four numbers for the top of the page: name and value."""
    model = _model_stage(facts)
    if model.rounds:
        yield "rounds of the model's training", f"{len(model.rounds):,}"
        chosen = next((each for each in model.rounds if each.round == model.chosen_round), None)
        if chosen is not None and chosen.error is not None:
            yield f"validation error at round {chosen.round}, mean over holders", number(chosen.error)
        elif chosen is not None and chosen.loss is not None:
            yield f"loss at round {chosen.round}", number(chosen.loss)
    yield "holders", f"{len(facts.holders):,}"
    if facts.opened:
        yield "masked sums opened", f"{_sums(facts):,}"


def _model_stage(facts: DeployedFacts) -> StageFigures:
    return next((stage for stage in facts.stages if stage.gives_model), facts.stages[-1])


def _sums(facts: DeployedFacts) -> int:
    """Different sums that were opened; one that was asked for again counts once."""
    return sum(count for opened in facts.opened for count in opened.over.values())


def _repeated(facts: DeployedFacts) -> int:
    """Masked sums of what had been summed before; statistics that several stages asked for among them."""
    return max(0, sum(stage.masked_sums for stage in facts.stages) - _sums(facts))


def _promise_words(card: PrivacyCard) -> str:
    if not card.holders:
        return "no differential privacy"
    epsilon = rounded_up(max(holder.joint_epsilon for holder in card.holders))
    persons = all(promise.is_person for holder in card.holders for promise in holder.promises)
    unit = "a person" if persons else "a window, which is not a person"
    return f"epsilon {epsilon}, delta {max(holder.joint_delta for holder in card.holders):.3g} for {unit}"


def _stage_table(facts: DeployedFacts) -> Table:
    columns = ("Stage", "What was done", "Rounds", "Weights of round", "Gives the model")
    rows = tuple(
        (
            stage.name,
            KIND_WORDS[stage.kind],
            f"{len(stage.rounds):,}" if stage.rounds else MISSING,
            MISSING if stage.chosen_round is None else f"{stage.chosen_round:,}",
            "yes" if stage.gives_model else "no",
        )
        for stage in facts.stages
    )
    return Table(columns, rows)


def _sums_table(facts: DeployedFacts) -> Table:
    """Over how many holders the sums of each stage were opened."""
    total, rows = len(facts.holders), []
    for opened in facts.opened:
        for holders, sums in sorted(opened.over.items(), reverse=True):
            name = opened.stage or STATISTICS
            rows.append((name, f"{holders:,} of {total:,}", f"{sums:,}", _without(opened.without)))
    return Table(("Stage", "Opened over", "Sums", "Opened without, in this stage"), tuple(rows))


def _without(missing: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count_of(sums, 'sum')})" for name, sums in missing.items()) or "nobody was missing"


def _ledger_table(facts: DeployedFacts) -> Table | None:
    if not facts.ledgers:
        return None
    rows = tuple((name, f"{seen.length:,}", seen.head) for name, seen in sorted(facts.ledgers.items()))
    return Table(("Holder", "Lines", "Head"), rows)


def _block(place: int, stage: StageFigures) -> StageBlock:
    curves = {
        "loss": [(each.round, each.loss) for each in stage.rounds if each.loss is not None],
        "validation error": [(each.round, each.error) for each in stage.rounds if each.error is not None],
    }
    drawn = [_curve(f"fig-{place}-{what.split()[0]}", what, stage, points) for what, points in curves.items() if points]
    return StageBlock(stage.name, KIND_WORDS[stage.kind], tuple(drawn))


def _curve(name: str, what: str, stage: StageFigures, points: Sequence[tuple[int, float]]) -> Picture:
    """One figure over the rounds of a stage; the round whose weights were kept is ringed."""
    rounds, values = zip(*points, strict=True)
    title = f"{what.capitalize()} of each round"
    marker = "o" if len(points) <= _MARKED else ""
    colour = INK["federated" if what == "loss" else "pooled"]
    kept = [point for point in points if point[0] == stage.chosen_round]
    with Sheet(name, 3.8, 2.5) as sheet:
        (axes,) = sheet.axes()
        axes.plot(rounds, values, color=colour, marker=marker, markersize=4)
        for point in kept:
            axes.plot(*point, linestyle="", marker="o", markersize=9, markerfacecolor="none",
                      markeredgecolor=INK["ink"], markeredgewidth=1.2)  # fmt: skip
        axes.set_xlabel("round")
        axes.set_ylabel(what)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.yaxis.set_major_formatter(_ticks(values))
        axes.margins(x=0.06, y=0.14)
        first, last = number(values[0]), number(values[-1])
        description = f"Line plot of the {what} over {count_of(len(points), 'round')}: from {first} to {last}."
        svg = sheet.svg(f"{title}, {shortened(stage.name, 60)}", description)
    caption = f"{stage.name}: mean over holders by the weights of their rows. The axis does not start at 0."
    if kept:
        caption += f" The ring marks round {stage.chosen_round}, whose weights were kept."
    table = Table(("Round", what.capitalize()), tuple((f"{each:,}", number(value, digits=6)) for each, value in points))
    return Picture(name, title, caption, svg, table)


def _ticks(values: Sequence[float]) -> Callable[[float, object], str]:
    """Labels that tell the ticks of a flat curve apart; short ones where there is room."""
    span = max(values) - min(values)
    if span <= 0 or span >= 1:
        return compact
    decimals = 2 - math.floor(math.log10(span))
    return lambda value, _: f"{value:.{decimals}f}"

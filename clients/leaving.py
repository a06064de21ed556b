"""What leaves a holder under a plan, before anything does: every kind of message, how often, how large, who reads it.

Sizes follow from the plan and from public lists alone, as the gate's do (`clients.service.allowed`), so they can be
shown before a row is read. Where they cannot be told yet, they are None: the gate knows them when it has the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clients.service.allowed import FORM, FORM_OF_ARRAY, PARCELS
from integration.exchange import PUSHES, exchange_phases
from integration.prediction.logistic import MOST_STEPS
from integration.task import GROUPS, NEWTON, study_section
from privacy.secure_aggregation.layout import Layout
from privacy.secure_aggregation.messages import parcel_size
from protocol.errors import MigrafedError
from protocol.masked_messages import ERROR, LOSS
from protocol.plan import Plan
from protocol.stages import StageSpec, stages_of
from protocol.statistic_shapes import Shapes, statistic_shapes
from protocol.tasks import Task, task_named

COORDINATOR_SUM, COORDINATOR = "the coordinator, as a sum over all holders", "the coordinator"


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """One kind of message.

    Args:
        stage: Of the run.
        what: In words.
        times: How often, at most; a run that is interrupted may ask again, and is given the same.
        bytes: Most bytes of one of them; None where that is known only when rows are open.
        reader: Who can read it.
    """

    stage: str
    what: str
    times: int
    bytes: int | None
    reader: str


def leaving(plan: Plan, public: Any) -> tuple[Leaving, ...]:
    """Everything that a plan makes a holder send, in order.

    Args:
        plan: The run plan.
        public: What everybody may know (`protocol.public_inputs`); None if that cannot be read.
    """
    return tuple(item for spec in stages_of(plan) for item in _Stage(spec, public).items())


class _Stage:
    """What leaves in one stage."""

    def __init__(self, spec: StageSpec, public: Any) -> None:
        self._spec, self._plan, self._public = spec, spec.plan, public
        self._task: Task = task_named(spec.plan.run.task)
        self._holders = len(spec.plan.federation.holders)

    def items(self) -> Iterator[Leaving]:
        spec = self._spec
        if spec.kind == "exchange":
            yield from self._exchange()
            return
        if self._plan.masks:
            yield self._item("keys, signatures and shares that set up and open masked sums", 4 * self._sums(),
                             self._holders * 2 * parcel_size(self._holders) + FORM, COORDINATOR)  # fmt: skip
        yield from self._phases()
        if spec.kind == "rounds":
            yield self._item("number of examples, and where the ledger stands", 2, FORM, COORDINATOR)
            yield from self._rounds()

    def _exchange(self) -> Iterator[Leaving]:
        study = study_section(self._plan)
        told = {"L1": f"counts of at least {study.push_threshold} contacts", "L2": "counts with noise", "L0": "counts"}
        for phase in exchange_phases(study):
            about = f", {told[study.pushes]}" if phase == PUSHES and study.pushes in told else ""
            yield self._item(f"sealed mail '{phase}'{about}", self._holders - 1, PARCELS.get(phase),
                             "one other holder each; the coordinator cannot open it")  # fmt: skip

    def _phases(self) -> Iterator[Leaving]:
        before: list[str] = []
        for phase, times in self._asked():
            yield self._item(f"statistics '{phase}'", times, self._statistics_bytes(phase, before), self._reader())
            before.append(phase)

    def _asked(self) -> tuple[tuple[str, int], ...]:
        """Phases of statistics, as `server.stages` asks for them, and how often each at most."""
        kind = self._spec.kind
        if kind == "groups":
            return ((GROUPS, 1),)
        phases = tuple((phase, 1) for phase in self._task.phases(self._plan, self._spec.share))
        return (*phases, (NEWTON, MOST_STEPS)) if kind == "newton" else phases

    def _rounds(self) -> Iterator[Leaving]:
        plan, rounds = self._plan, self._plan.training.rounds
        noise = "noised " if plan.trains_privately else ""
        update, error = self._model_bytes()
        yield self._item(f"{noise}update of the model's weights", rounds, update, self._reader())
        if not plan.trains_privately:
            yield self._item("validation error of the model, one number", rounds, error, self._reader())

    def _sums(self) -> int:
        """Masked sums of the stage, at most."""
        statistics = sum(times for _, times in self._asked())
        if self._spec.kind != "rounds":
            return statistics
        return statistics + (1 if self._plan.trains_privately else 2) * self._plan.training.rounds

    def _statistics_bytes(self, phase: str, before: Sequence[str]) -> int | None:
        if self._public is None:
            return None
        try:
            totals: dict[str, np.ndarray] = {}
            for name in before:
                totals |= _ones(self._shapes(name, totals))
            shapes = self._shapes(phase, totals)
        except (MigrafedError, KeyError):
            return None
        zeros = {name: np.zeros(shape) for name, shape in shapes.items()}
        if not self._plan.masks:
            return sum(value.nbytes + FORM_OF_ARRAY for value in zeros.values()) + FORM
        return self._masked(Layout.for_statistics(zeros, holders=self._holders))

    def _model_bytes(self) -> tuple[int | None, int | None]:
        """Most bytes of an update and of an error."""
        if self._public is None:
            return None, None
        try:
            totals: dict[str, np.ndarray] = {}
            for name in self._task.phases(self._plan, self._spec.share):
                totals |= _ones(self._shapes(name, totals))
            with np.errstate(all="ignore"):
                model = self._task.build_model(self._public, self._plan, self._spec.share, totals)
        except (MigrafedError, KeyError, ValueError):
            return None, None
        personal = self._task.personal(model)
        shapes = {name: tuple(leaf.shape) for name, leaf in model.named_parameters() if name not in personal}
        if not self._plan.masks:
            return sum(4 * int(np.prod(shape)) + FORM_OF_ARRAY for shape in shapes.values()) + FORM, FORM
        exact = {} if self._plan.trains_privately else {LOSS: np.zeros(())}
        update = Layout.for_update(
            shapes, clip_norm=self._plan.federation.update_norm, holders=self._holders, exact=exact
        )
        return self._masked(update), self._masked(Layout.for_statistics({ERROR: np.zeros(())}, holders=self._holders))

    def _masked(self, layout: Layout) -> int:
        """A masked vector, a digest and a parcel for each holder, and its envelope."""
        return 4 * layout.words + self._holders * (parcel_size(self._holders) + 64) + 2 * FORM

    def _shapes(self, phase: str, totals: dict[str, np.ndarray]) -> Shapes:
        return statistic_shapes(phase, self._plan, totals, public=lambda: self._public)

    def _reader(self) -> str:
        return COORDINATOR_SUM if self._plan.masks else COORDINATOR

    def _item(self, what: str, times: int, size: int | None, reader: str) -> Leaving:
        return Leaving(stage=self._spec.name, what=what, times=times, bytes=size, reader=reader)


def _ones(shapes: Shapes) -> dict[str, np.ndarray]:
    """Stand-ins for sums that nobody has yet: sizes do not depend on them."""
    return {name: np.ones(shape) for name, shape in shapes.items()}

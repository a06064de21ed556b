"""The run plan: one TOML file that says what is trained, by whom, on what, and for how long.

The sections ``[data]`` and ``[model]`` belong to the task and are checked by the task's own configuration (see
`protocol.tasks`); everything else is checked here. Unknown keys are refused and the nearest valid one is named::

    plan = load_plan(Path("japan_regions.toml"), overrides={"training.rounds": "5"}, seed=3)
    plan.digest()        # the hash that every message and the run folder carry
"""

from __future__ import annotations

import datetime as dt
import difflib
import hashlib
import json
import math
import statistics
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from protocol.errors import PlanError, ProtocolError
from protocol.frozen import FrozenConfig
from protocol.privacy_section import PrivacyMode, PrivacySection
from protocol.tasks import task_named

Share = Literal["weights", "weights+margins"]
Aggregation = Literal["secure", "robust", "plain"]
RobustRule = Literal["median", "trimmed_mean", "norm_bound"]
MODES: dict[str, tuple[PrivacyMode, ...]] = {
    "dhgsil": ("counts", "window-dpsgd"),
    "integration": ("person-dpsgd",),
    "integration-mlp": ("person-dpsgd",),
}
"""Modes of protection by task, where not every mode makes sense: what an example is decides."""


class RunSection(FrozenConfig):
    """``[run]``: what the run is called, which task it trains, and its seed."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    task: str
    seed: int = Field(default=0, ge=0, lt=2**31)


class TrainingSection(FrozenConfig):
    """``[training]``: the schedule that federated, pooled and alone training share, so that budgets are equal."""

    rounds: int = Field(default=30, ge=1)
    local_epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=8, ge=0, description="windows per step; 0 means one full batch")
    optimizer: Literal["adam", "sgd"] = "adam"
    optimizer_state: Literal["kept", "reset"] = "kept"
    learning_rate: float = Field(default=1e-3, gt=0)
    final_learning_rate: float = Field(default=1e-5, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = Field(default=1e-5, ge=0)
    gradient_clip: float = Field(default=5.0, ge=0, description="largest gradient norm; 0 switches it off")
    fit_on: Literal["train", "train+validation"] = "train"
    select: Literal["best", "last"] = Field(default="best", description="the round whose weights are kept")
    patience: int = Field(default=0, ge=0, description="rounds without a better validation error; 0 never stops early")

    def rate_after(self, progress: float) -> float:
        """Learning rate after a part of all steps, from 0 to 1: constant, or cosine,

        lr_end + (lr - lr_end) (1 + cos(pi progress)) / 2
        """
        if self.schedule == "constant":
            return self.learning_rate
        low, high = self.final_learning_rate, self.learning_rate
        return low + (high - low) * (1 + math.cos(math.pi * progress)) / 2

    @model_validator(mode="after")
    def _choice_needs_unseen_data(self) -> TrainingSection:
        if self.fit_on == "train+validation" and (self.select == "best" or self.patience):
            raise ValueError('fit_on = "train+validation" leaves nothing to choose a round on; set select = "last"')
        return self


class FederationSection(FrozenConfig):
    """``[federation]``: who holds what, what they share, and how their updates are combined.

    aggregation, one promise of three, never two: ``secure``, whatever a holder sends is masked and the coordinator
    learns sums alone; ``robust``, the coordinator sees every update, noised before, and limits what a single holder can
    spoil; ``plain``, neither, only where every holder's policy allows it.
    """

    strategy: Literal["fedavg", "fedprox", "fedadam"] = "fedavg"
    aggregation: Aggregation = "secure"
    update_norm: float = Field(
        default=64.0, gt=0, le=1e6, description="largest L2 norm of an update (secure; robust with norm_bound)"
    )
    weight_cap: float = Field(
        default=100.0, ge=1, description="largest weight a holder may claim, as a multiple of the median (secure)"
    )
    robust_rule: RobustRule = Field(default="median", description="how updates are combined (robust)")
    trim: float = Field(default=0.2, gt=0, lt=0.5, description="part cut off at either end (robust, trimmed_mean)")
    shares: tuple[Share, ...] = Field(default=("weights", "weights+margins"), min_length=1)
    proximal_mu: float = Field(default=0.01, gt=0, description="FedProx only")
    server_learning_rate: float = Field(default=1e-2, gt=0, description="FedAdam only")
    vectorise: Literal["auto", "always", "never"] = "auto"
    holders: dict[str, tuple[str, ...]] = Field(min_length=1)

    @field_validator("shares")
    @classmethod
    def _each_share_once(cls, shares: tuple[Share, ...]) -> tuple[Share, ...]:
        if len(set(shares)) != len(shares):
            raise ValueError("a share is there twice; name each once")
        return shares

    @field_validator("holders")
    @classmethod
    def _each_holds_something(cls, holders: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, regions in holders.items():
            if not name.isprintable() or name != name.strip() or not 1 <= len(name) <= 64:
                raise ValueError(f"holder name {name!r} must be 1 to 64 printable characters, not blank at its ends")
            if not regions:
                raise ValueError(f"holder '{name}' has no regions; give it at least one or remove it")
            if len(set(regions)) != len(regions):
                raise ValueError(f"holder '{name}' lists a region twice")
        return holders

    def check_weights(self, weights: Mapping[str, int]) -> None:
        """Refuse weights with which one holder alone would decide: a weight is a claim, and no sum shows a false one.

        Raises:
            ProtocolError: whose weight is how many times the median, and how many times it may be.
        """
        heaviest, middle = max(weights, key=lambda name: weights[name]), statistics.median(weights.values())
        if (times := weights[heaviest] / middle) > self.weight_cap:
            raise ProtocolError(
                f"'{heaviest}' claims weight {weights[heaviest]}, {times:.4g} times the median, and the plan's "
                f"weight_cap is {self.weight_cap:g}; ask that holder, or raise federation.weight_cap"
            )

    def check_robust(self, *, protected: bool) -> None:
        """Refuse a robust rule that would defend against nobody, or show updates that nothing was added to.

        Raises:
            ValueError: which rule is broken, and what to set.
        """
        count = len(self.holders)
        if not protected:
            raise ValueError(
                'federation.aggregation = "robust" shows the coordinator every update, so updates must be noised '
                'before; add [privacy], or set "secure"'
            )
        if self.strategy != "fedavg":
            raise ValueError(
                f'federation.aggregation = "robust" combines updates by robust_rule, and strategy = "{self.strategy}" '
                'would combine them in its own way; set strategy = "fedavg"'
            )
        if count < 3:
            raise ValueError(
                f'federation.aggregation = "robust" needs a majority of honest holders, so 3 or more, and there are '
                f'{count}; set "secure"'
            )
        if self.robust_rule == "trimmed_mean" and int(self.trim * count) < 1:
            raise ValueError(
                f"federation.trim = {self.trim:g} cuts off nobody of {count} holders; set at least {1 / count:.3f}"
            )


class ScopeSection(FrozenConfig):
    """``[compare]``: what is trained beside the federation, on the same data with the same schedule."""

    alone: bool = True
    pooled: bool = True
    baselines: tuple[str, ...] | Literal["all"] = "all"


class ReportSection(FrozenConfig):
    """``[report]``: the metric declared before the run, and how much is written."""

    metric: Literal["rmse", "mae"] = "rmse"
    scale: Literal["log1p", "raw", "share"] = "log1p"
    pairs: int = Field(default=12, ge=1, le=500, description="largest pairs whose forecasts are written and drawn")
    bootstrap_block: int = Field(default=14, ge=1, description="block length in steps")
    break_date: str | None = Field(default=None, description="report errors before and after this day apart")

    @field_validator("break_date")
    @classmethod
    def _break_is_a_day(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                dt.date.fromisoformat(text)
            except ValueError:
                raise ValueError(f"'{text}' is not a date; write it as YYYY-MM-DD") from None
        return text


class Plan(FrozenConfig):
    """A whole run, frozen. ``data`` and ``model`` are the task's and already checked by it."""

    run: RunSection
    data: dict[str, JsonValue]
    model: dict[str, JsonValue] = Field(default_factory=dict)
    training: TrainingSection = TrainingSection()
    federation: FederationSection
    compare: ScopeSection = ScopeSection()
    report: ReportSection = ReportSection()
    privacy: PrivacySection | None = None

    @model_validator(mode="after")
    def _mode_fits_the_task(self) -> Plan:
        modes = MODES.get(self.run.task)
        if self.privacy is not None and modes is not None and self.privacy.mode not in modes:
            raise ValueError(
                f'privacy.mode = "{self.privacy.mode}" is not for task "{self.run.task}"; set one of {", ".join(modes)}'
            )
        return self

    @model_validator(mode="after")
    def _aggregation_keeps_its_promise(self) -> Plan:
        federation = self.federation
        if federation.aggregation == "secure" and not 2 <= len(federation.holders) <= 50:
            raise ValueError(
                f'federation.aggregation = "secure" is for 2 to 50 holders, and there are {len(federation.holders)}; '
                'set "plain", which every holder has to allow'
            )
        if federation.aggregation == "robust":
            federation.check_robust(protected=self.privacy is not None)
        if self.shares_noise and not (self.trains_privately and federation.aggregation == "secure"):
            raise ValueError(
                'privacy.noise = "distributed" protects only within a masked sum of training steps; set '
                'federation.aggregation = "secure" and a mode of private training, or noise = "local"'
            )
        return self

    @model_validator(mode="after")
    def _shared_noise_is_one_step_a_round(self) -> Plan:
        """A round is then one step, taken where the sum is: by the coordinator, with plain SGD or FedAdam."""
        if not self.shares_noise:
            return self
        sgd = self.federation.strategy == "fedavg" and self.training.optimizer == "sgd"
        if not (sgd or self.federation.strategy == "fedadam") or self.training.local_epochs != 1:
            raise ValueError(
                'with privacy.noise = "distributed" a round is one step over all holders, which the coordinator takes; '
                'set training.local_epochs = 1 and either training.optimizer = "sgd" with federation.strategy = '
                '"fedavg", or strategy = "fedadam"'
            )
        return self

    @model_validator(mode="after")
    def _every_private_training_is_charged(self) -> Plan:
        if not self.trains_privately:
            return self
        wanted = {
            'federation.shares = ["weights"]': self.federation.shares == ("weights",),
            "compare.pooled = false": not self.compare.pooled,
            "compare.alone = false": not self.compare.alone,
            'training.fit_on = "train"': self.training.fit_on == "train",
            'training.select = "last"': self.training.select == "last",
            "training.patience = 0": self.training.patience == 0,
            "training.batch_size >= 1": self.training.batch_size >= 1,
            'federation.vectorise = "auto"': self.federation.vectorise != "always",
        }
        if missing := [rule for rule, kept in wanted.items() if not kept]:
            raise ValueError(
                f'with privacy.mode = "{self.mode}" every training and every choice on held-out data costs budget, and '
                f"only one training is charged; set {', '.join(missing)}"
            )
        return self

    @property
    def mode(self) -> PrivacyMode | Literal["none"]:
        """What protects people."""
        return "none" if self.privacy is None else self.privacy.mode

    @property
    def masks(self) -> bool:
        """Whether everything that holders send is masked, so that only sums are seen."""
        return self.federation.aggregation == "secure"

    def unmasked(self) -> Plan:
        """The same plan for a federation of one, who has nobody to hide from and nobody to add up with."""
        federation = self.federation.model_copy(update={"aggregation": "plain"})
        return self.model_copy(update={"federation": federation})

    @property
    def trains_privately(self) -> bool:
        """Whether every training step is noised, so that no loss and no error of raw data may be asked for."""
        return self.mode in ("window-dpsgd", "person-dpsgd")

    @property
    def shares_noise(self) -> bool:
        """Whether each holder adds a part of the noise only, so that nothing but their masked sum may be seen."""
        return self.privacy is not None and self.privacy.noise == "distributed"

    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the plan, as 64 hexadecimal digits."""
        return digest_of(self.model_dump(mode="json"))


Config = TypeVar("Config", bound=BaseModel)


def parse_config(model: type[Config], values: Mapping[str, Any], *, where: str) -> Config:
    """Check `values` against `model`, or raise a `PlanError` that names the key, the rule and the way out."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise PlanError("; ".join(_explain(item, model, where) for item in error.errors())) from None


def digest_of(value: JsonValue) -> str:
    """SHA-256 of the canonical JSON of a value, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_toml(path: Path, *, what: str, way_out: str = "give the path of a TOML file") -> dict[str, Any]:
    """The content of a TOML file; `what` names it in errors, `way_out` is what to do where it cannot be read.

    Raises:
        PlanError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read {what} {str(path)[:300]} ({error.strerror}); {way_out}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{what} {path} is not valid TOML ({error}); correct that line") from None


def load_plan(path: Path, *, overrides: Mapping[str, str] | None = None, seed: int | None = None) -> Plan:
    """Read and check a plan, the task's sections included.

    Args:
        path: A TOML file.
        overrides: ``{"section.key": "value"}``; the value is read as TOML, else as text. The key must exist.
        seed: Replaces ``[run] seed``.

    Raises:
        PlanError: no such file, not TOML, an unknown key or task, or a value that breaks a rule.
    """
    values = read_toml(path, what="plan")
    for key, text in (overrides or {}).items():
        _override(values, key, text)
    if seed is not None:
        values.setdefault("run", {})["seed"] = seed
    return parse_plan(values, where=path.name)


def parse_plan(values: Mapping[str, Any], *, where: str = "plan") -> Plan:
    """Check a plan given as nested mappings; the task fills in and checks ``data`` and ``model``."""
    plan = parse_config(Plan, values, where=where)
    task = task_named(plan.run.task)
    data = parse_config(task.data_config, plan.data, where=f"{where} [data]")
    model = parse_config(task.model_config, plan.model, where=f"{where} [model]")
    return plan.model_copy(
        update={"data": data.model_dump(mode="json", by_alias=True), "model": model.model_dump(mode="json")}
    )


def _override(values: dict[str, Any], key: str, text: str) -> None:
    *sections, last = key.split(".")
    target: Any = values
    for section in sections:
        target = target.setdefault(section, {}) if isinstance(target, dict) else None
    if not sections or not isinstance(target, dict) or "" in (*sections, last):
        raise PlanError(f"cannot override '{key}': give it as section.key=value")
    try:
        target[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        target[last] = text


def _explain(item: Any, model: type[BaseModel], where: str) -> str:
    """One pydantic complaint as: where, key, rule, way out."""
    path = [str(part) for part in item["loc"]]
    key = ".".join(path) or "(top level)"
    if item["type"] != "extra_forbidden":
        way_out = "add it" if item["type"] == "missing" else "change the value"
        given = f", got {item['input']}" if isinstance(item["input"], int | float) else ""
        return f"{where}: '{key}': {item['msg'].removeprefix('Value error, ')}{given}; {way_out}"
    known = sorted(_fields_at(model, path[:-1]))
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.0)
    hint = f"did you mean '{near[0]}'?" if near else "remove it"
    return f"{where}: unknown key '{key}'; {hint} (known: {', '.join(known)})"


def _fields_at(model: type[BaseModel], path: list[str]) -> set[str]:
    for part in path:
        field = model.model_fields.get(part)
        choices = get_args(field.annotation) or (field.annotation,) if field is not None else ()
        inner = next((choice for choice in choices if isinstance(choice, type) and choice is not type(None)), None)
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return set()
        model = inner
    return {field.alias or name for name, field in model.model_fields.items()}

"""What a data holder allows, in its own words: the section ``[privacy]`` of its ``holder.toml``.

The coordinator's plan is checked against it and never changes it::

    [privacy]
    holder = "telecom-north"
    population = "subscribers"
    period = "2026"
    max_epsilon = 2.0                # for one person over everything released in the period
    delta = 1e-7
    population_size = 4_000_000      # optional; delta must then be below 1 / population_size
    contributions = 10               # most cells a person may count in
    least_noise_multiplier = 0.5     # least noise over sensitivity, whatever the accountant says
    clip_norm = 1.0                  # largest gradient norm of one example

    [privacy.pushes]                 # what other operators may be told of their subscribers' contacts; default: nothing
    allow = "threshold"              # or "private": counts with noise alone, or "none"
    least_contacts = 5               # fewest known contacts that a count may be of

    [privacy.aggregation]            # how what is sent may be added up; default: only sums are ever seen
    allow = ["secure"]
    least_survivors = 7              # fewest holders that a sum may be opened over; default floor(2n/3) + 1
    roster = "3f6c…"                 # hash of the members' keys that the operator compared and approved
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from privacy.campaign import check_population_delta
from privacy.ledger import Terms
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.errors import PlanError, PolicyRefusedError
from protocol.plan import Aggregation, FrozenConfig, parse_config, read_toml

_SECTION = "privacy"
_NEEDS = {"L2": ("private", "threshold"), "L1": ("threshold",)}
"""What `PushPolicy.allow` must be for a level: counts with noise tell less than thresholded ones."""


class PushPolicy(FrozenConfig):
    """``[privacy.pushes]``: what may be told to other operators about contacts of their subscribers.

    allow: ``none``; ``private``, counts with noise that the ledger pays for; or ``threshold``, exact counts over at
    least `least_contacts` contacts as well, which is no promise but a habit of statistics. Everything, small counts
    too (level L0), is told only where `made_up` says that the records are nobody's.
    """

    allow: Literal["none", "private", "threshold"] = "none"
    least_contacts: int = Field(default=5, ge=2, description="fewest known contacts that an exact count may be of")
    made_up: bool = Field(default=False, description="the records are synthetic: nobody's")
    matching: Literal["none", "cardinality", "bits"] = Field(
        default="none", description="what an asking operator may learn: nothing, how many are here too, or who"
    )

    def check(self, level: str, *, least: int) -> None:
        """Refuse a level of pushes that goes further than this holder allows.

        Raises:
            PolicyRefusedError: which level or threshold was asked for, and what is allowed.
        """
        if level == "none":
            return
        if level == "L0":
            if not self.made_up:
                raise PolicyRefusedError(
                    "pushes of level L0 tell others the birthplace of single persons, and the policy does not say that "
                    "these records are made up; use L1 or L2, or none"
                )
            return
        if self.allow not in _NEEDS.get(level, ()):
            raise PolicyRefusedError(
                f'the plan asks for pushes of level {level}, and the policy has pushes.allow = "{self.allow}"; '
                'change the plan to "none", or ask the holder'
            )
        if level == "L1" and least < self.least_contacts:
            raise PolicyRefusedError(
                f"the plan's push_threshold is {least}, and the policy allows at least {self.least_contacts}; raise it"
            )

    def check_matching(self, reveal: str) -> None:
        """Refuse to answer a matching question that would tell more than this holder allows.

        Raises:
            PolicyRefusedError: what was asked for, and what is allowed.
        """
        order = ("none", "cardinality", "bits")
        if order.index(reveal) > order.index(self.matching):
            raise PolicyRefusedError(
                f'matching that tells "{reveal}" is asked for, and the policy has pushes.matching = "{self.matching}"; '
                "ask for less, or ask the holder"
            )


class AggregationPolicy(FrozenConfig):
    """``[privacy.aggregation]``: how what this holder sends may be added up with what others send.

    allow: promises that a plan may make: ``secure``, sums alone are seen; ``robust``, noised updates are seen;
    ``plain``, everything is seen. By default sums alone.
    """

    allow: tuple[Aggregation, ...] = ("secure",)
    least_survivors: int | None = Field(
        default=None, ge=2, description="fewest holders of an opened sum; floor(2n/3) + 1 unless more are wanted"
    )
    roster: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="hash of the approved roster")
    openings: bool = Field(default=False, description="whether what was put into a sum is shown under dispute")

    def check(self, aggregation: Aggregation) -> None:
        """Refuse a plan whose promise this holder does not accept.

        Raises:
            PolicyRefusedError: which promise the plan makes, and which are allowed.
        """
        if aggregation not in self.allow:
            raise PolicyRefusedError(
                f'the plan has federation.aggregation = "{aggregation}", and the policy allows '
                f"{', '.join(self.allow) or 'none'}; change the plan, or ask the holder"
            )

    def check_roster(self, digest: str) -> None:
        """Refuse a roster that was not approved.

        Raises:
            PolicyRefusedError: the hashes of both.
        """
        if self.roster is not None and self.roster != digest:
            raise PolicyRefusedError(
                f"the roster has hash {digest[:12]} and the policy approves {self.roster[:12]}; compare its members "
                "with what their operators say, then approve it"
            )


class HolderPolicy(FrozenConfig):
    """Least noise, widest bounds and the whole budget of one population of one holder.

    Adjacency: add or remove one unit. The cap is for the unit of what is released (a person for counts, the example
    that the plan names for DP-SGD); where both are released, keep a ledger for each.
    """

    holder: str = Field(min_length=1, max_length=200, description="name of the data holder")
    population: str = Field(min_length=1, max_length=200, description="whose records are released from")
    period: str = Field(min_length=1, max_length=200, description="the time span that one budget covers")
    max_epsilon: float = Field(gt=0, lt=1000, description="cap over everything released in the period")
    delta: float = Field(gt=0, lt=1, description="failure probability that goes with the cap")
    contributions: int = Field(ge=1, description="largest number of cells in which one person may count")
    least_noise_multiplier: float = Field(gt=0, description="least noise stddev over L2 sensitivity")
    clip_norm: float = Field(gt=0, description="largest L2 norm of one example's gradient")
    population_size: int | None = Field(default=None, ge=1, description="persons; delta must be below 1 over it")
    pushes: PushPolicy = PushPolicy()
    aggregation: AggregationPolicy = AggregationPolicy()
    person_scores: bool = Field(default=False, description="whether scores of single persons may be written")

    @field_validator("holder", "population", "period")
    @classmethod
    def _names_can_be_printed(cls, name: str) -> str:
        if not name.isprintable() or name != name.strip():
            raise ValueError(f"{name!r} must be printable and not blank at its ends")
        return name

    @model_validator(mode="after")
    def _delta_fits_the_population(self) -> HolderPolicy:
        if self.population_size is not None:
            check_population_delta(self.delta, population=self.population_size)
        return self

    def terms(self) -> Terms:
        """What the holder's ledger stands for, with the numbers exactly as they are written in decimal."""
        return Terms(
            self.holder, self.population, self.period, epsilon=_exact(self.max_epsilon), delta=_exact(self.delta)
        )

    def check(self, plan: CountReleasePlan | DPSGDPlan) -> None:
        """Refuse a plan that asks for more than this holder allows; what is spent already is the ledger's to know.

        Raises:
            PolicyRefusedError: which rule, what the plan asks for, and what is allowed.
        """
        if isinstance(plan, CountReleasePlan):
            if plan.contributions > self.contributions:
                self._refuse("contributions per person", plan.contributions, "at most", self.contributions)
        elif plan.clip_norm > self.clip_norm:
            self._refuse("clip_norm", plan.clip_norm, "at most", self.clip_norm)
        if plan.noise_multiplier < self.least_noise_multiplier:
            self._refuse("noise_multiplier", plan.noise_multiplier, "at least", self.least_noise_multiplier)
        # The cap last: it takes the accountant, and a NaN in its answer must not pass.
        if not (epsilon := plan.epsilon(self.delta)) <= self.max_epsilon:
            self._refuse(f"epsilon at delta {self.delta:g}", epsilon, "at most", self.max_epsilon)

    def _refuse(self, rule: str, asked: float, bound: str, allowed: float) -> None:
        raise PolicyRefusedError(
            f"the plan's {rule} is {asked:.6g}, and the policy of '{self.holder}' allows {bound} {allowed:.6g}; "
            "change the plan, or ask the holder"
        )


def load_policy(path: Path) -> HolderPolicy:
    """Read the section ``[privacy]`` of a holder's own configuration.

    Raises:
        PlanError: no such file, not TOML, no such section, an unknown or missing key, or a value that breaks a rule.
    """
    values = read_toml(path, what="policy")
    section = values.get(_SECTION)
    if not isinstance(section, dict):
        raise PlanError(f"policy {path} has no section [{_SECTION}]; without a cap nothing may be released, so add it")
    return parse_config(HolderPolicy, section, where=f"{path.name} [{_SECTION}]")


def _exact(value: float) -> Fraction:
    """The decimal number that a person wrote, not the nearest power-of-two fraction."""
    return Fraction(str(value))

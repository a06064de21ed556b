"""The mechanism of a run plan, calibrated: what a holder draws its noise from, and what a card may say of it.

Everything here is made of the plan and of public numbers, so that who has no data can compute it too::

    count_mechanism(plan.privacy)                                    # mode "counts"
    step_mechanism(plan, unit=task.unit, num_examples=372)           # noise in every training step
"""

from __future__ import annotations

from privacy.distributed import step_schedule
from privacy.plan import CountReleasePlan, DPSGDPlan
from protocol.errors import PlanError
from protocol.plan import Plan, PrivacySection

Mechanism = CountReleasePlan | DPSGDPlan

PERSON = "one person: all contributions of one account at this holder in the period"
OWN_RECORDS = "a subscriber's own outgoing records; being called is not protected"


def unit_of(contacts: int) -> str:
    """Whose presence training over rows of persons hides, in words; K is named where there is one."""
    if not contacts:
        return OWN_RECORDS
    return (
        f"a subscriber's own outgoing records, which enter its own row and at most {contacts} rows of others; being "
        "called is not protected"
    )


def count_mechanism(section: PrivacySection) -> CountReleasePlan:
    """One release of counts, with the least noise that keeps the epsilon of a plan for a person.

    Raises:
        PrivacyParameterError: no noise in reach keeps the promise.
    """
    start = CountReleasePlan(
        unit=PERSON,
        contributions=section.contributions,
        cells_stddev=1.0,
        margins_stddev=1.0 if section.margins else None,
    )
    return start.calibrate(epsilon=section.epsilon, delta=section.delta, margin_share=section.margin_share)


def step_mechanism(plan: Plan, *, unit: str, num_examples: int) -> DPSGDPlan:
    """Noise in every training step: the least that keeps the epsilon of a plan for one example and its contacts.

    Args:
        plan: With ``[privacy]``.
        unit: What one example is, in words.
        num_examples: A public number of training examples of each holder.

    Raises:
        PlanError: the plan has no ``[privacy]``.
        PrivacyParameterError: no noise in reach keeps the promise.
    """
    section = plan.privacy
    if section is None:
        raise PlanError("the plan has no [privacy] section; add one with mode, epsilon and delta")
    start = DPSGDPlan(
        unit=unit,
        clip_norm=section.clip_norm,
        noise_multiplier=1.0,
        contacts=section.contacts,
        **step_schedule(plan, num_examples=num_examples),
    )
    return start.calibrate(epsilon=section.epsilon, delta=section.delta)

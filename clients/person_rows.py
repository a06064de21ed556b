"""Private training over rows of persons (`mode = "person-dpsgd"`): its mechanism, and what a plan must not ask for.

    mechanism = person_mechanism(plan, num_rows=20_000)
    HolderAgent(name, tables, plan, task, shares, custody=custody, mechanism=mechanism)

Unit: a subscriber's own outgoing records, of which its row is made; with K = `privacy.contacts` above 0 they also enter
at most K rows of others. Adjacency: add or remove them. Being called is not protected: a call stands in the records of
who made it. A subscriber of two operators is promised the sum of both.
"""

from __future__ import annotations

from integration.person_rows import check_person_features
from integration.task import feature_names
from privacy.mechanisms import step_mechanism, unit_of
from privacy.plan import DPSGDPlan
from protocol.errors import PlanError
from protocol.plan import Plan


def person_mechanism(plan: Plan, *, num_rows: int) -> DPSGDPlan:
    """The plan's mechanism, with the least noise that keeps its epsilon for a subscriber and its contacts.

    q = batch_size / num_rows,   T = rounds · local_epochs · ceil(num_rows / batch_size)

    With ``noise = "distributed"`` a round is one step over all holders, see `privacy.distributed.step_schedule`.

    Args:
        plan: With ``[privacy] mode = "person-dpsgd"``.
        num_rows: A public number of training rows of a holder, rounded say: the promise holds whatever it is, as long
            as it was not counted from the rows themselves. One for all holders, or one each.

    Raises:
        PlanError: another mode, features that others' records enter, or a batch that is larger than num_rows.
        PrivacyParameterError: no noise in reach keeps the promise.
    """
    section = plan.privacy
    if section is None or section.mode != "person-dpsgd":
        raise PlanError(f'a mechanism over rows of persons needs privacy.mode = "person-dpsgd", got "{plan.mode}"')
    check_person_features(feature_names(plan), contacts=section.contacts)
    batch = plan.training.batch_size
    if not 1 <= batch <= num_rows:
        raise PlanError(
            f"training.batch_size is {batch}, and a holder has {num_rows} training rows; choose from 1 to that number"
        )
    return step_mechanism(plan, unit=unit_of(section.contacts), num_examples=num_rows)

"""What a card says of the way holders' updates are added up: hidden, robust, or neither, and what that leaves open.

    sums_promise(plan).headline                # "Hidden updates: ..." or "Robust to ..." or "Neither ..."

A plan makes one of the two promises at most. Hiding updates keeps the coordinator from telling false ones from true
ones; telling them apart takes seeing them. Neither is a promise to persons: what is said of persons rests on noise.
"""

from __future__ import annotations

from collections.abc import Iterator

from privacy.card import Origin, Party, SumsPromise
from privacy.secure_aggregation.arrays import REAL_BITS
from privacy.secure_aggregation.roster import least_survivors
from protocol.plan import FederationSection, Plan

WORD_BYTES = 4


def sums_promise(plan: Plan) -> SumsPromise:
    """The promise that the plan makes about sums, for its number of holders."""
    federation = plan.federation
    if federation.aggregation == "secure":
        return _secure(federation, shared_noise=plan.privacy is not None and plan.privacy.noise == "distributed")
    return _robust(federation) if federation.aggregation == "robust" else _plain(federation)


def _secure(federation: FederationSection, *, shared_noise: bool) -> SumsPromise:
    n = len(federation.holders)
    t = least_survivors(n)
    bear = 2 * t - n - 1
    return SumsPromise(
        aggregation="secure",
        headline=f"Hidden updates: the coordinator learns sums over at least {t} of {n} holders, and of no holder its "
        "own part. No defence against holders that send false updates.",
        coordinator_sees="masked words, from which it can compute sums alone: of updates, of sums before training, of "
        "losses and errors; each holder's weight, and a salted hash of what it put in; who answered, and when",
        holds_while=f"at most {bear} of {n} holders help a coordinator that lies, their keys are those in the roster "
        "that each operator approved, and the implementation is right, which nobody outside this project has checked",
        otherwise="the coordinator can learn what a single holder put into a sum; "
        + (
            "there is a part of the noise alone in it, and the promise to persons falls with it"
            if shared_noise
            else "a promise to persons by noise that each holder adds alone stands all the same"
        ),
        num_holders=n,
        least_survivors=t,
        colluders=bear,
        update_norm=federation.update_norm,
    )


def _robust(federation: FederationSection) -> SumsPromise:
    n, rule = len(federation.holders), federation.robust_rule
    norm = federation.update_norm if rule == "norm_bound" else None
    tolerated = {"median": (n - 1) // 2, "trimmed_mean": int(federation.trim * n), "norm_bound": None}[rule]
    if norm is not None:
        bounded = f"no dishonest holder of {n} moves the result of a round by more than {2 * norm / n:.3g} in L2"
    else:
        bounded = (
            f"with at most {tolerated} of {n} holders dishonest, every number of a round's result lies between numbers "
            "that honest holders sent"
        )
    return SumsPromise(
        aggregation="robust",
        headline=f"Robust to dishonest holders by {_RULES[rule]}: {bounded}. Updates are not hidden.",
        coordinator_sees="every holder's updates, noised before they left it, its sums before training if there are "
        "any, its weight, its losses and errors",
        holds_while="the coordinator applies the rule"
        + ("" if tolerated is None else f" and at most {tolerated} holders are dishonest"),
        otherwise="the result can be anything; what was promised to persons stands, for it rests on noise alone",
        num_holders=n,
        rule=rule,
        dishonest=tolerated,
        update_norm=norm,
    )


_RULES = {"median": "the median", "trimmed_mean": "a trimmed mean", "norm_bound": "a bound on each update"}


def _plain(federation: FederationSection) -> SumsPromise:
    return SumsPromise(
        aggregation="plain",
        headline="Neither promise: the coordinator sees what each holder sends, and one dishonest holder can spoil the "
        "result.",
        coordinator_sees="every holder's updates, sums, weight, losses and errors, unmasked",
        holds_while="nothing is promised of sums; every holder's policy had to allow that",
        otherwise="nothing more is lost",
        num_holders=len(federation.holders),
    )


def sums_not_promised(plan: Plan) -> Iterator[str]:
    """What a reader could believe of the plan's sums and must not."""
    n = len(plan.federation.holders)
    if plan.federation.aggregation == "secure":
        yield (
            "Secure aggregation is no differential privacy: a sum tells what it tells. Two holders learn each other's "
            f"part by taking away their own, and {max(n - 1, 1)} of these {n} that work together learn the last one's."
        )
        yield (
            "Hidden updates may be false ones. A dishonest holder can move a mean as far as the check of the sum's "
            f"range lets it, {n} times update_norm in L2, more by claiming a large weight, and can stop any round; its "
            "signed hash shows afterwards what it sent, if it is opened."
        )
        yield "The implementation of secure aggregation is this project's own and was not reviewed by anybody outside."
    elif plan.federation.aggregation == "robust":
        yield "Updates are not hidden from the coordinator: what protects people in them is noise alone."
        yield (
            "A robust rule is no proof of honesty: colluders move the result within the range of honest updates, a "
            "backdoor may fit into it, and with few holders, or holders unlike each other, that range is wide."
        )
        yield (
            "A robust result is not the mean: every holder counts once, however many rows it has, and those unlike the "
            "rest are heard less."
        )
        if not plan.trains_privately:
            yield (
                "Sums before training are sums of what was released with noise; they are seen, and no rule bounds them."
            )
    else:
        yield "Updates are not hidden from the coordinator, and no rule bounds what a dishonest holder can spoil."


def coordinator_gets(plan: Plan) -> str:
    """In what form the coordinator gets what holders send to be added up."""
    if plan.federation.aggregation == "secure":
        return "the coordinator, masked: it learns the sum over holders"
    return "the coordinator, unmasked"


def coordinator_party(plan: Plan, *, more: str = "") -> Party:
    """What the coordinator is trusted with where no noise protects anybody; `more` is what else it does."""
    if plan.federation.aggregation == "secure":
        sums = sums_promise(plan)
        return Party(
            party="coordinator",
            trusted_with=f"sums over holders{more}",
            otherwise=f"helped by more than {sums.colluders} holders it learns single parts of sums; it infers what "
            "sums were made of, may ask for other sums, and may stop the run",
        )
    return Party(
        party="coordinator",
        trusted_with=f"every holder's weights and sums, unmasked{more}",
        otherwise="it infers what they were made of; coarse matrices of single steps are the counts themselves",
    )


def number_bytes(plan: Plan, *, update: bool) -> int:
    """Size of one number on its way to the coordinator: of an update, or of a sum of statistics, a loss, an error."""
    if plan.federation.aggregation != "secure":
        return 4 if update else 8
    digit_bits = 31 - (len(plan.federation.holders) - 1).bit_length()
    return WORD_BYTES * (1 if update else -(-REAL_BITS // digit_bits))


def masking_messages(plan: Plan, made_of: Origin) -> Iterator[tuple[str, Origin, str]]:
    """What leaves a holder beside its parts of masked sums: name, what it is made of, where it goes."""
    if plan.federation.aggregation == "secure":
        yield "keys of the session, signatures", "public", "the coordinator, and through it all holders"
        yield "shares of seeds of masks, sealed", "public", "the coordinator, and through it the holder of each share"
        yield "salted hash of its part of each sum, signed", made_of, "the coordinator, who stores it"

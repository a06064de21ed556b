"""The sentences of a card: whom one must trust, what is not promised, and the questions of NIST SP 800-226."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from dhgsil.task import data_section
from privacy.card import Party, Question, RegistryEntry
from privacy.mechanisms import Mechanism
from privacy.plan import CountReleasePlan
from protocol.plan import Plan, PrivacySection
from server.cards.shared_noise_words import (
    SHARED_MECHANISM,
    shared_across,
    shared_model,
    shared_parties,
    shared_trust,
    shares_noise,
)
from server.cards.sum_words import coordinator_party, sums_not_promised

COUNT_MECHANISM = "discrete Gaussian noise on every cell of bounded counts, once"
STEP_MECHANISM = "DP-SGD: Poisson samples, clipped gradients, rounded Gaussian noise on integer sums"


def accountant() -> str:
    """Whose arithmetic epsilon is."""
    return f"privacy loss distributions, pessimistic (dp-accounting {importlib.metadata.version('dp-accounting')})"


def mechanism_words(mechanism: Mechanism) -> str:
    """The mechanism in one line."""
    if isinstance(mechanism, CountReleasePlan):
        return COUNT_MECHANISM
    return SHARED_MECHANISM if shares_noise(mechanism) else STEP_MECHANISM


def trust_words(mechanism: Mechanism | None) -> str:
    """Who adds the noise, in one line."""
    if mechanism is None:
        return "no noise: trust everybody who sees a message"
    if shares_noise(mechanism):
        return shared_trust(mechanism)
    return "noise at each holder: its people trust their holder, and nobody else"


def contribution_rules(mechanism: CountReleasePlan, *, bounded: bool = False) -> tuple[str, ...]:
    """What a person may add to each query, so that its sensitivity is what is accounted for.

    Counts that a run has `bounded` itself keep one cell of each side off the diagonal.
    """
    rules = (
        f"cells: in at most {mechanism.contributions} cells (step, origin, destination) of the period, once in each",
    )
    if bounded:
        rules = (*rules, "off the diagonal in at most one cell per (origin, step) and one per (destination, step)")
    if mechanism.margins_stddev is None:
        return rules
    if bounded:
        return (*rules, "inflow and outflow: sums of these cells off the diagonal")
    return (
        *rules,
        "inflow: once per (destination, step), from however many origins",
        "outflow: once per (origin, step), to however many destinations",
    )


def headline(mechanism: Mechanism | None, privacy: PrivacySection | None) -> str:
    """The whole card in one sentence."""
    if mechanism is None or privacy is None:
        return "Nothing in this run is differentially private."
    asked = f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}, add or remove one"
    if isinstance(mechanism, CountReleasePlan):
        return (
            f"Each holder protects each person, counted in at most {mechanism.contributions} cells in the period "
            f"'{privacy.period}': {asked} person, for everything made of the released counts."
        )
    who = "Each holder protects"
    if shares_noise(mechanism):
        who = f"All holders together, at least {mechanism.honest} of them honest, protect"
    return (
        f"{who} the presence of each window, which is not a person: {asked} window. "
        "What that is worth to a person stands beside it."
    )


def across(plan: Plan, mechanism: Mechanism | None) -> str:
    """What is promised to somebody whom several holders know."""
    privacy, holders = plan.privacy, len(plan.federation.holders)
    if mechanism is None or privacy is None:
        return "Nothing is promised to anybody, at one holder or at several."
    if shares_noise(mechanism):
        return shared_across(privacy, holders=holders)
    whom = "Somebody known to" if isinstance(mechanism, CountReleasePlan) else "A window of time in the data of"
    return (
        f"The promise is per holder. {whom} j holders of this run is promised the sum: epsilon j times "
        f"{privacy.epsilon:g} at delta j times {privacy.delta:g}, j at most {holders}."
    )


def parties(plan: Plan, mechanism: Mechanism | None, *, deployed: bool = False) -> tuple[Party, ...]:
    """What each party is trusted with; `deployed`: on machines of their own, with a network between them."""
    carriers = (_carriers(plan),) if deployed else ()
    if shares_noise(mechanism) and plan.privacy is not None:
        shared = shared_parties(mechanism, plan.privacy.delta, holders=len(plan.federation.holders))
        return (*shared, *carriers)
    if mechanism is None:
        return (coordinator_party(plan), _OTHERS, _MODEL_READER if deployed else _READER, *carriers)
    return (*_PROTECTED, *carriers)


def _carriers(plan: Plan) -> Party:
    """Who carries messages in a deployment; see docs/deployment.md."""
    reads = "masked words, of which it learns nothing" if plan.masks else "what its own holder sends, unmasked"
    return Party(
        party="node of a holder, and the network",
        trusted_with="carrying messages in time; TLS and signed messages show what was changed on the way",
        otherwise=f"they may stop the run, and see when and how much is sent; a node also sees {reads}",
    )


_OTHERS = Party(
    party="other holders",
    trusted_with="sums and means over holders",
    otherwise="with one other holder the rest is that holder's; with more, what they can infer",
)
_READER = Party(
    party="reader of the run", trusted_with="plain counts of the largest pairs", otherwise="the counts are known"
)
_MODEL_READER = Party(
    party="reader of the run",
    trusted_with="the model, and losses and errors of rounds",
    otherwise="whatever of the rows can be inferred from them is known",
)
_PROTECTED = (
    Party(
        party="each holder",
        trusted_with="its own raw records, its key, and bounding what one person contributes",
        otherwise="its own people's promise is void; other holders' people keep theirs",
    ),
    Party(
        party="coordinator",
        trusted_with="nothing for this promise: noise is added before anything leaves a holder",
        otherwise="it may stop the run, or show holders different sums; it learns no more than the promise allows",
    ),
    Party(
        party="other holders, readers of what was released",
        trusted_with="nothing for this promise, also if all of them work together",
        otherwise="they learn no more about the protected unit of this holder than the promise allows",
    ),
    Party(
        party="machine of the holder",
        trusted_with="randomness of its system (os.urandom), fsync of its disk, a clock that does not go back",
        otherwise="noise could be guessed, or spending forgotten; heads of ledgers seen by others show a rollback",
    ),
)


def not_promised(
    plan: Plan, mechanism: Mechanism | None, *, bounded: bool = False, deployed: bool = False
) -> Iterator[str]:
    """What a reader could believe and must not.

    Args:
        bounded: Counts were made of records, with a bound on each person.
        deployed: The folder is a coordinator's, who had no rows and no ledgers.
    """
    if mechanism is None:
        yield from _unprotected(plan, deployed=deployed)
        return
    if isinstance(mechanism, CountReleasePlan):
        yield _ACCOUNTS if bounded else _assumed(mechanism)
        yield "The regions, the steps, who takes part and how noisy each release is are public."
    else:
        yield (
            "A window is not a person. A person's records change every window that covers them; what the promise is "
            "worth to a person stands beside it."
        )
        yield (
            "Only weights are covered. Forecasts that a holder makes with them are made of its raw counts: a forecast "
            "needs the counts before it."
            if deployed
            else "Only weights are covered. Forecasts, their parts, intervals, attraction, flows, values drawn, "
            "baselines and errors in this folder are made of raw counts: a forecast needs the counts before it."
        )
    if deployed:
        yield UNSEEN
    elif plan.privacy is not None and plan.privacy.score_against == "truth":
        yield "Errors were measured on raw counts, outside the promise; do that on synthetic or public data only."
    yield (
        "What is charged elsewhere: only campaigns in these ledgers are added up. Runs that keep ledgers of their own "
        "(as on synthetic data without --ledgers), holders under another name, and ledgers of the other unit (people, "
        "windows) know nothing of each other; for the same records their epsilons add up."
    )
    yield from sums_not_promised(plan)
    yield "What can be learnt from the time, size and number of messages, and from how long the run took."
    yield "Groups: people who move alike, a household say, have about as many times the epsilon as they are."
    yield "What is true of the crowd: differential privacy hides who took part, not what everybody does."
    yield "A holder may lie: nothing here proves that it bounded contributions or added its noise."


UNSEEN = (
    "A coordinator wrote this card. It has seen no row and no ledger: it knows the plan, length and hash of each "
    "ledger, and what was sent to it. What a holder's policy allows, at which delta its ledger adds up and what was "
    "spent there before stand with the holder ('migrafed holder ledger show'), and so do the checks of its mechanisms."
)
"""Said in place of what only holders know."""
_ACCOUNTS = (
    "A person is one user key in the holder's table: somebody with two accounts counts as two. Which rows are queries "
    "about a job is decided by public rules and keyword lists, row by row and for each person apart."
)


def _unprotected(plan: Plan, *, deployed: bool) -> Iterator[str]:
    yield (
        "No differential privacy in this run: no noise was added to counts, margins or updates; no epsilon can be "
        "stated."
    )
    masked = plan.federation.aggregation == "secure"
    yield (
        "Rows of counts stayed with their holder; its model weights reached the coordinator "
        + ("in masked sums, and sums of weights" if masked else "unmasked, and weights")
        + " can reveal training data."
    )
    if "weights+margins" in plan.federation.shares:
        blocks = data_section(plan).block_steps
        yield (
            "With weights+margins, each holder also sent its totals per region and step and its coarse mobility graph, "
            + ("which with block_steps = 1 is every count it has, " if blocks == 1 else "")
            + (
                "in exact masked sums; where one holder alone has a region, the sum is its own."
                if masked
                else "exact and unmasked."
            )
        )
    yield from sums_not_promised(plan)
    yield "Parameters of single pairs, where the plan switches them on, stayed with their holder."
    if not deployed:
        yield "The report and the tables beside it show exact counts of single pairs. Handle them like the data."


def _assumed(mechanism: CountReleasePlan) -> str:
    margins = (
        ""
        if mechanism.margins_stddev is None
        else ", nor more than once in the inflow of one (destination, step) or the outflow of one (origin, step)"
    )
    once = "" if mechanism.margins_stddev is None else ", also once per side, as the margins are sums of the cells"
    return (
        f"That no person counts in more than {mechanism.contributions} cells of the period, or twice in one{margins}, "
        "is assumed of the counts, which cannot show it. It holds if they were bounded so when they were made of "
        f"records{once}; where it does not, neither does epsilon."
    )


def registry(
    plan: Plan, mechanism: Mechanism | None, *, measure: str, version: str, counted_by: str | None = None
) -> RegistryEntry:
    """The columns of the public registry of deployments; epsilon is `counted_by` the accountant of the promises."""
    privacy = plan.privacy
    product = f"forecasts of {measure} between regions, trained by {len(plan.federation.holders)} holders"
    domain = f"counts of {measure} per step, origin and destination, on a public grid"
    if mechanism is None or privacy is None:
        absent = "none"
        return RegistryEntry(
            product=product, data_domain=domain, tier=None, description="federated, without privacy", flavour=absent,
            privacy_loss="none can be stated", unit=absent, model="no noise", accounting=absent, implementation=absent,
            unprotected="everything",
        )  # fmt: skip
    counts = isinstance(mechanism, CountReleasePlan)
    return RegistryEntry(
        product=product,
        data_domain=domain,
        tier=3,
        description="each holder releases its bounded counts once with noise; all else is made of them"
        if counts
        else "each holder adds noise to every step of its training; weights are what is released",
        flavour="approximate differential privacy",
        privacy_loss=f"{_loss(privacy)}, per holder and period '{privacy.period}'",
        unit=mechanism.unit,
        model=shared_model(mechanism)
        if shares_noise(mechanism)
        else "central at each holder, with no trust between holders or in the coordinator",
        accounting=f"{counted_by or accountant()}; one campaign reserved whole in each holder's ledger; "
        "everything computed from what was released is post-processing",
        implementation=f"migrafed {version}: {mechanism_words(mechanism)}; AES-256-CTR keyed by os.urandom, integer "
        "sums, conformance checks before the run; no outside review",
        unprotected="regions, steps, holders, plan and noise are public"
        if counts
        else "calendar, holders, plan and noise are public; all but the weights is made of raw counts",
    )


def questions(plan: Plan, mechanism: Mechanism | None, *, deployed: bool = False) -> Iterator[Question]:
    """The pyramid of NIST SP 800-226, from its top down; `deployed`: answered by a coordinator of real holders."""
    for (layer, question), answer in zip(_PYRAMID, _answers(plan, mechanism, deployed=deployed), strict=True):
        yield Question(layer=layer, question=question, answer=answer)  # type: ignore[arg-type]


def _answers(plan: Plan, mechanism: Mechanism | None, *, deployed: bool) -> tuple[str, ...]:
    privacy = plan.privacy
    if mechanism is None or privacy is None:
        return ("There is none: there is no differential privacy in this run.",) + (
            "There is no differential privacy in this run.",
        ) * (len(_PYRAMID) - 1)
    counts, truth = isinstance(mechanism, CountReleasePlan), privacy.score_against == "truth"
    return (
        f"{_loss(privacy)}, for each holder.",
        f"{mechanism.unit}. Add or remove one.",
        f"{'One release of the counts' if counts else 'All steps of the training'}, charged as one campaign that was "
        "reserved whole in each holder's ledger before anything left it; earlier campaigns stand in the same ledger.",
        f"{mechanism_words(mechanism)}. "
        + (
            "Each holder's agent checks its mechanisms before it releases anything; the coordinator has not seen the "
            "figures."
            if deployed
            else "Checked before the run started, see audits; passing a check proves no promise."
        ),
        "Small cells drown in noise: a value below three noise standard deviations cannot be told from an empty cell. "
        "Rare flows, and whoever makes them, are served worst: check each use that depends on them. Estimates cut off "
        "at 0 are too large where counts are small."
        if counts
        else "Noise in each step slows learning, more so for a holder with few windows. Compare the errors with a run "
        "without noise before using the model.",
        "Integers are noised from a keyed stream of os.urandom, so there is no floating-point noise on a sum. Time, "
        "size and number of messages, memory and swap are not covered.",
        f"{shared_trust(mechanism)[:1].upper()}{shared_trust(mechanism)[1:]}."
        if shares_noise(mechanism)
        else "Its own people trust each holder with their records. Nobody trusts the coordinator, other holders or "
        "readers.",
        f"This toolkit {_ENCRYPTED if deployed else _UNENCRYPTED} Keys of ledgers are readable by their owner only.",
        "Whoever reads the holder's files reads the raw records"
        + ("; the coordinator does not." if deployed else ", and in a simulation that is whoever runs it."),
        _EXPOSED if deployed else _exposed(counts=counts, truth=truth),
    )


_UNENCRYPTED = "encrypts neither the holder's files nor its messages: use an encrypted disk and TLS."
_ENCRYPTED = "does not encrypt the holder's files: use an encrypted disk. Messages between machines go over TLS."
_EXPOSED = (
    "The folder holds sums and a model, and nothing else of the rows. What a holder makes with the model is the "
    "holder's. Collection itself is out of scope."
)


def _loss(privacy: PrivacySection) -> str:
    """Epsilon of this run, and of the period where its budget has room for other campaigns."""
    words = f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}"
    if privacy.budget is None or privacy.budget <= privacy.epsilon:
        return words
    return f"{words} for this campaign, epsilon up to {privacy.budget:g} with all others in the ledger"


def _exposed(*, counts: bool, truth: bool) -> str:
    if not counts:
        return "In this folder all but the weights is made of raw counts. Collection itself is out of scope."
    if truth:
        return "Errors on raw counts are in this folder. Collection itself is out of scope."
    return "Nothing in this folder is made of raw counts but through the release. Collection itself is out of scope."


_GUARANTEE, _UNDERMINE, _BASE = "guarantee", "what can undermine it", "what it stands on"
_PYRAMID = (
    (_GUARANTEE, "How large is epsilon?"),
    (_GUARANTEE, "What is the unit of privacy?"),
    (_GUARANTEE, "What is covered by the budget?"),
    (_UNDERMINE, "Is the algorithm correct, and how was that checked?"),
    (_UNDERMINE, "What do utility and bias look like?"),
    (_UNDERMINE, "Which side channels remain?"),
    (_UNDERMINE, "Whom must one trust?"),
    (_BASE, "How are raw data secured?"),
    (_BASE, "Who has access?"),
    (_BASE, "What do collection and the rest of the folder expose?"),
)

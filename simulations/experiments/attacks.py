"""Measure the audits: bounds on correct mechanisms, what they see of broken ones, false alarms, and attacks.

    python -m simulations.experiments.attacks canaries counts defects false-alarms forecaster attacks sums

Each part prints one table in Markdown; without a name all are made. Coins come from ``--seed``, noise and batches from
the operating system, so figures differ a little from one run to the next.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from privacy.audits.attacks import attack_audits, inversion_plan
from privacy.audits.canaries import audit_dpsgd
from privacy.audits.canary_models import CanaryHost, CoordinateCanaries, LogisticCanaries, PerceptronCanaries
from privacy.audits.defects import DEFECTS
from privacy.audits.exact import audit_counts
from privacy.audits.inversion import AttackName
from privacy.audits.results import AuditResult
from privacy.audits.subject import production
from privacy.audits.sum_inversion import SENT, Sent, audit_sum_inversion
from privacy.dpsgd import DPSGD
from privacy.plan import CountReleasePlan, DPSGDPlan
from privacy.randomness import SecureStream
from privacy.release import NoisyCounts, release_counts
from simulations.audit_cases import ForecasterTraining

CLAIMS = (1.0, 4.0, 8.0)
DELTA = 1e-5
DEFECT_NAMES = ("no noise", "no clipping", "clip of the batch mean", "noise / 4", "noise / 2", "reused noise")
FORECASTER_CANARIES = 1000


@dataclass(frozen=True)
class Setting:
    """One training: sampling rate, steps, canaries."""

    rate: float
    steps: int
    canaries: int
    real: int = 1000

    def plan(self, epsilon: float, *, real: int | None = None) -> DPSGDPlan:
        """Calibrated to a claim."""
        examples = (self.real if real is None else real) + self.canaries / 2
        plan = DPSGDPlan(
            clip_norm=1.0,
            noise_multiplier=1.0,
            sampling_rate=self.rate,
            expected_batch=self.rate * examples,
            steps=self.steps,
        )
        return plan.calibrate(epsilon=epsilon, delta=DELTA)

    def __str__(self) -> str:
        return f"q = {self.rate:g}, {self.steps} step(s), {self.canaries} canaries"


SETTINGS = (Setting(0.05, 100, 1000), Setting(0.25, 50, 1000), Setting(1.0, 10, 1000), Setting(1.0, 1, 5000))


def canaries(seed: int) -> None:
    """Bounds on the correct mechanism: any mechanism / its own family, white box, then black box."""
    print("| host | setting | claim | any DP | own family | black box, own family | provable | CPU s |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for host_of in (LogisticCanaries, PerceptronCanaries):
        for setting in SETTINGS if host_of is LogisticCanaries else SETTINGS[1:3]:
            for claim in CLAIMS:
                host = host_of(setting.real, setting.canaries, clip_norm=1.0)
                white, black = _audited(DPSGD, setting.plan(claim), host, seed)
                print(
                    f"| {host.name} | {setting} | {claim:g} | {white.figures['any_dp']:.2f} | {_marked(white)} "
                    f"| {_marked(black)} | {white.largest_provable:.2f} | {white.seconds:.1f} |",
                    flush=True,
                )


def counts(seed: int, *, repeats: int = 3) -> None:
    """The count release, correct and broken: median bound, and in how many of `repeats` runs it was flagged."""
    print("| noise | " + " | ".join(f"claim {claim:g}" for claim in CLAIMS) + " |\n|---|" + "---:|" * len(CLAIMS))
    for name, divisor in (("correct", 1.0), ("5 % too quiet", 1 / 0.95), ("/ 2", 2.0), ("/ 4", 4.0), ("none", np.inf)):
        cells = []
        for claim in CLAIMS:
            plan = CountReleasePlan(contributions=10, cells_stddev=1.0, margins_stddev=1.0)
            plan = plan.calibrate(epsilon=claim, delta=DELTA)
            found = [_counted(plan, divisor, 5000, 0.95, seed + number) for number in range(repeats)]
            flagged = sum(not result.consistent for result in found)
            ratio = np.median([result.figures["noise_ratio"] for result in found])
            bound = np.median([result.lower_bound or 0.0 for result in found])
            cells.append(f"{bound:.2f}, {flagged}/{repeats}, noise {ratio:.3f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def defects(seed: int) -> None:
    """Broken DP-SGD at q = .25, 50 steps, 1,000 canaries: bound of the own family, bold where flagged."""
    setting, known = SETTINGS[1], {defect.name: defect for defect in DEFECTS}
    print("| defect | " + " | ".join(f"claim {claim:g}" for claim in CLAIMS) + " |\n|---|" + "---:|" * len(CLAIMS))
    for name in DEFECT_NAMES:
        broken = known[name].plant(production()).dpsgd
        cells = []
        for claim in CLAIMS:
            host = LogisticCanaries(setting.real, setting.canaries, clip_norm=1.0)
            white, _ = _audited(broken, setting.plan(claim), host, seed)
            cells.append(_marked(white))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def false_alarms(seed: int, *, runs: int = 100) -> None:
    """Correct mechanisms accused, at confidence 0.95, in small settings."""
    print("| mechanism | runs | accused | median bound | claim |\n|---|---:|---:|---:|---:|")
    for setting, claim in ((Setting(1.0, 1, 500, 100), 1.0), (Setting(0.25, 5, 400, 100), 1.0)):
        host, plan = LogisticCanaries(setting.real, setting.canaries, clip_norm=1.0), setting.plan(claim)
        pairs = [_audited(DPSGD, plan, host, seed + number) for number in range(runs)]
        for name, results in (("white", [pair[0] for pair in pairs]), ("black", [pair[1] for pair in pairs])):
            _alarm_line(f"DP-SGD, {setting}, {name} box", results, claim)
    plan = CountReleasePlan(contributions=10, cells_stddev=1.0, margins_stddev=1.0).calibrate(epsilon=1.0, delta=DELTA)
    found = [_counted(plan, 1.0, 1000, 0.95, seed + number) for number in range(runs)]
    _alarm_line("counts, 1000 canaries", found, 1.0)


def forecaster(seed: int) -> None:
    """Crafted gradient canaries among the windows of the registered forecaster."""
    case = ForecasterTraining()
    print(f"{case.name}: {_size(case.model)} parameters, {case.num_examples} real windows, a parameter per canary\n")
    print("| setting | claim | any DP | own family | black box | provable | CPU s |\n" + "|---|" + "---:|" * 6)
    for rate, steps in ((1.0, 1), (1.0, 10), (0.25, 20)):
        setting = Setting(rate, steps, FORECASTER_CANARIES, case.num_examples)
        for claim in (1.0, 4.0):
            plan = setting.plan(claim)
            host = CoordinateCanaries(
                case.name,
                case.model,
                case.loss,
                case.batch(np.arange(case.num_examples)),
                num_canaries=setting.canaries,
                plan=plan,
            )
            white, black = _audited(DPSGD, plan, host, seed)
            print(
                f"| {setting} | {claim:g} | {white.figures['any_dp']:.2f} | {_marked(white)} | {_marked(black)} "
                f"| {white.largest_provable:.2f} | {white.seconds:.1f} |",
                flush=True,
            )


def attacks(_seed: int) -> None:
    """Membership inference and gradient inversion at full size; data from the fixed seeds of the audit."""
    for result in attack_audits(quick=False):
        figures = ", ".join(f"{name} {value:.4g}" for name, value in result.figures.items())
        proven = result.lower_bound is not None
        bound = f"bound {result.lower_bound:.2f} of {result.claimed_epsilon:.2f}, " if proven else ""
        verdict = "as expected" if result.consistent else "**not as expected**"
        print(f"- {result.name} ({result.seconds:.1f} s): {bound}{figures}; {verdict}", flush=True)


def sums(_seed: int, *, trials: int = 64) -> None:
    """Inversion of sums over 1 to 10 holders, one input each: usual and crafted models, and helped by all others."""
    print("| model | attack | holders | updates | victim recovered | of all | median | chance: median, 95th | CPU s |")
    print("|---|---|---:|---|---:|---:|---:|---:|---:|")
    kinds: list[tuple[Sent, AttackName]] = [(sent, "analytic") for sent in SENT]
    kinds.append(("usual", "matching"))
    for sent, attack in kinds:
        for plan in (None, inversion_plan(1, noise_multiplier=1.0)):
            for holders in (1, 2, 3, 5, 10) if sent == "usual" else (2, 3, 5, 10):
                found = audit_sum_inversion(
                    sent, holders=holders, plan=plan, trials=trials, delta=DELTA, stream=SecureStream(), seed=20260311,
                    attack=attack,
                )  # fmt: skip
                figures = found.figures
                print(
                    f"| {sent} | {attack} | {holders} | {'plain' if plan is None else 'DP-SGD'} "
                    f"| {figures['recovered']:.0%} | {figures['recovered_of_all']:.0%} "
                    f"| {figures['cosine_median']:.2f} "
                    f"| {figures['chance_median']:.2f}, {figures['chance_95']:.2f} | {found.seconds:.1f} "
                    f"|{'' if found.consistent else ' **not as expected**'}",
                    flush=True,
                )


PARTS: Mapping[str, Callable[[int], None]] = {
    "canaries": canaries,
    "counts": counts,
    "defects": defects,
    "false-alarms": false_alarms,
    "forecaster": forecaster,
    "attacks": attacks,
    "sums": sums,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="tables to make; all if none is named")
    parser.add_argument("--seed", type=int, default=1, help="of the coins (default 1)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in options.parts or PARTS:
        started = time.process_time()
        print(f"\n### {name}\n")
        PARTS[name](options.seed)
        print(f"\n{time.process_time() - started:.0f} CPU seconds")


def _audited(mechanism: type[DPSGD], plan: DPSGDPlan, host: CanaryHost, seed: int) -> tuple[AuditResult, AuditResult]:
    coins = np.random.default_rng(seed)
    return audit_dpsgd(mechanism(plan, SecureStream()), host, delta=DELTA, confidence=0.95, coins=coins)


def _counted(plan: CountReleasePlan, divisor: float, persons: int, confidence: float, seed: int) -> AuditResult:
    """An audit of a release whose noise is divided by `divisor` without telling the auditor."""

    def release(queries: Mapping[str, np.ndarray], plan: CountReleasePlan, stream: SecureStream) -> NoisyCounts:
        if np.isinf(divisor):
            return NoisyCounts(values=dict(queries), stddev=dict.fromkeys(queries, 1.0))
        margins = None if plan.margins_stddev is None else plan.margins_stddev / divisor
        quieter = {"cells_stddev": plan.cells_stddev / divisor, "margins_stddev": margins}
        return release_counts(queries, plan.model_copy(update=quieter), stream)

    return audit_counts(
        plan,
        canaries=persons,
        delta=DELTA,
        confidence=confidence,
        coins=np.random.default_rng(seed),
        stream=SecureStream(),
        release=release,
    )


def _alarm_line(name: str, results: Sequence[AuditResult], claim: float) -> None:
    accused = sum(not result.consistent for result in results)
    median = np.median([result.lower_bound or 0.0 for result in results])
    print(f"| {name} | {len(results)} | {accused} | {median:.2f} | {claim:g} |", flush=True)


def _marked(result: AuditResult) -> str:
    """The bound, bold where it contradicts the claim."""
    return f"{result.lower_bound:.2f}" if result.consistent else f"**{result.lower_bound:.2f}**"


def _size(model: torch.nn.Module) -> int:
    return sum(leaf.numel() for leaf in model.parameters())


if __name__ == "__main__":
    main()

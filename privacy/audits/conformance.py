"""The conformance battery: does the code of a private run do what its accounting assumes? In seconds, every time.

Exact questions where there is an exact answer, statistical ones where noise is involved, each on the production objects
themselves (`privacy.audits.subject`). It runs before every private run, and a run does not start when it fails::

    require_conformance(production(training=case))

Statistical questions are asked of fresh secure noise, so the answers differ from run to run; by `statistics.LEVEL` a
correct mechanism fails in fewer than 1 of 200,000 batteries. What each check can catch is proven by planting defects:
`privacy.audits.defects`. Passing does not prove privacy: it excludes the mistakes that the checks look for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from privacy.audits.check import Check, CheckResult
from privacy.audits.checks import (
    accounting,
    clipping,
    counts,
    ledger,
    masked_refusals,
    masked_results,
    masked_sums,
    noise,
    sampling,
)
from privacy.audits.one_thread import one_thread
from privacy.audits.subject import Subject
from protocol.errors import ConformanceError

CHECKS: tuple[Check, ...] = (
    *noise.CHECKS,
    *sampling.CHECKS,
    *clipping.CHECKS,
    *counts.CHECKS,
    *accounting.CHECKS,
    *ledger.CHECKS,
    *masked_sums.CHECKS,
    *masked_refusals.CHECKS,
    *masked_results.CHECKS,
)


def conformance(
    subject: Subject, *, checks: Sequence[Check] = CHECKS, done: Callable[[CheckResult], None] = lambda result: None
) -> list[CheckResult]:
    """Answers of all checks, in order; `done` is told each as it comes."""
    results = []
    with one_thread():
        for check in checks:
            results.append(check.run(subject))
            done(results[-1])
    return results


def require_conformance(subject: Subject) -> list[CheckResult]:
    """Answers of all checks, all of them good.

    Raises:
        ConformanceError: names each check that failed, with its figure and its bound; nothing was released.
    """
    results = conformance(subject)
    if failed := [result for result in results if not result.passed]:
        found = "; ".join(
            f"'{each.check}' ({each.figure:.4g} > {each.threshold:.4g}: {each.detail})" for each in failed
        )
        raise ConformanceError(
            f"{len(failed)} of {len(results)} conformance checks failed, so no private run starts: {found}; "
            "run 'migrafed audit' and put the mechanism right"
        )
    return results


def false_alarms(
    subject: Subject,
    *,
    runs: int,
    checks: Sequence[Check] = CHECKS,
    done: Callable[[int], None] = lambda run: None,
) -> list[list[CheckResult]]:
    """The checks that failed in each of so many batteries; for correct mechanisms all lists should be empty.

    `done` is told the number of each battery, from 1, when it is over.
    """
    found = []
    for run in range(1, runs + 1):
        found.append([result for result in conformance(subject, checks=checks) if not result.passed])
        done(run)
    return found

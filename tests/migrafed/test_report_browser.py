"""The report opens in a real browser without a console error and without a request, and the check can fail."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from migrafed.reports.audit import write_audit_page
from migrafed.reports.deployed import write_deployed_report
from migrafed.reports.forecast import write_report
from migrafed.reports.integration import write_integration_report
from simulations.call_results import IntegrationResult
from simulations.results import RunResult
from tests.audits import fabricated_audit
from tests.call_runs import write_fabricated
from tests.cards import private_card, window_card
from tests.deployed_folders import fabricated

pytestmark = [pytest.mark.browser, pytest.mark.slow]
HOSTILE = (
    "<script>console.error('owned')</script>", '"><img src=x onerror=alert(1)>', "$\\frac{1}{2}$ & $x", "]]><!--",
    "'; DROP TABLE", "</title></svg></style><b>", "{{ 7 * 7 }}", "東京都", "a\u202egnp", "=1+1", "x" * 200, "&lt;i&gt;",
)  # fmt: skip
PLANTED = {
    "image": '<img src="https://example.invalid/a.png">',
    "style": '<style>@import url("https://example.invalid/a.css");</style>',
    "script": '<script src="https://example.invalid/a.js"></script>',
    "fetch": "<script>fetch('https://example.invalid/a')</script>",
    "console": "<script>console.error('planted')</script>",
    "exception": "<script>throw new Error('planted')</script>",
    "local file": '<img src="beside.png">',
}


def _driver() -> Any:
    path = Path(__file__).with_name("chromium.py")
    spec = importlib.util.spec_from_file_location("migrafed_tests_chromium", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = _driver()
    program = driver.executable()
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    opened = driver.Browser(program)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(make_run: Callable[..., Path]) -> Path:
    """A report, built once."""
    return write_report(RunResult.read(make_run()))


@pytest.fixture(scope="module")
def calls_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of an integration run, built once."""
    folder = write_fabricated(tmp_path_factory.mktemp("calls") / "run")
    return write_integration_report(IntegrationResult.read(folder))


@pytest.mark.parametrize("width", [1200, 390])
def test_the_report_is_quiet_and_fits(browser: Any, page: Path, width: int) -> None:
    """No error, no warning, no request, and no sideways scrolling of the page, on a screen and on a phone."""
    assert browser.problems(page, width=width) == []
    assert browser.evaluate("document.querySelectorAll('svg[role=img]').length") > 10
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    drawn = "[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 50)"
    assert browser.evaluate(drawn) is True


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("kind", ["counts", "window-dpsgd", "audit", "integration", "deployed"])
def test_pages_about_privacy_are_quiet_and_fit(
    browser: Any, make_run: Callable[..., Path], calls_page: Path, tmp_path: Path, kind: str, width: int
) -> None:
    """Long tables scroll in their own frame, on a phone too."""
    if kind == "audit":
        page = write_audit_page(tmp_path, fabricated_audit())
    elif kind == "integration":
        page = calls_page
    elif kind == "deployed":
        page = write_deployed_report(replace(fabricated(card=private_card()), folder=tmp_path))
    else:
        card = private_card() if kind == "counts" else window_card()
        page = write_report(RunResult.read(make_run(card=card)))
    assert browser.problems(page, width=width) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.querySelectorAll('table').length") > 3


def test_hostile_names_stay_text(browser: Any, make_run: Callable[..., Path]) -> None:
    """Names that are markup, formulas or templates are shown as they are and do nothing."""
    facts = {"notes": (HOSTILE[0],), "command": HOSTILE[1], "run": HOSTILE[5], "versions": {HOSTILE[0]: HOSTILE[1]}}
    page = write_report(RunResult.read(make_run(names=HOSTILE, holders=(HOSTILE[0], HOSTILE[1]), **facts)))
    assert browser.problems(page) == []
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate("document.images.length") == 0
    text = browser.evaluate("document.body.textContent")
    for name in HOSTILE[:8]:
        assert name in text
    assert "49" not in browser.evaluate("document.querySelector('#fig-ranking svg').textContent")


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("guarded", [True, False])
def test_the_check_can_fail(browser: Any, page: Path, tmp_path: Path, kind: str, guarded: bool) -> None:
    """A planted request or error is noticed, with the page's own content-security policy and without it."""
    text = page.read_text(encoding="utf-8")
    if not guarded:
        text = text.replace("Content-Security-Policy", "X-No-Policy")
    planted = tmp_path / "planted.html"
    planted.write_text(text.replace("<main>", f"{PLANTED[kind]}<main>"), encoding="utf-8")
    assert browser.problems(planted) != []

"""What a user meets at the terminal: exit codes, a closing block, one JSON object, quiet rounds, a log behind it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migrafed.__main__ import main
from migrafed.arguments import overrides
from migrafed.checks import Check, free_space
from migrafed.commands import doctor, simulate
from protocol.errors import (
    HolderRefusedError,
    InputError,
    MigrafedError,
    RefusedError,
    RunInterruptedError,
    TrainingError,
)
from server.run_folder import RunSummary
from simulations.results import RunResult

MakeRun = Callable[..., Path]
ROUNDS = 30


@pytest.fixture
def plan() -> str:
    return str(Path(simulate.__file__).parents[2] / "simulations" / "plans" / "demo.toml")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, make_run: MakeRun, tmp_path: Path) -> Callable[..., None]:
    """Replaces the runner by one that behaves like it, and may fail in the middle."""

    def install(error: BaseException | None = None, *, opened: bool = True) -> None:
        def run(plan: Any, *, progress: Any, **given: Any) -> RunSummary:
            folder = tmp_path / "made"
            folder.mkdir()
            if opened:
                progress.run_opened(folder, ("north", "south"))
            print("a library prints")  # noqa: T201 -- that is what is tested
            warnings.warn("a library warns", UserWarning, stacklevel=1)
            logging.getLogger("library").info("a library logs")
            progress.stage_started("federated, weights", ROUNDS)
            for done in range(1, ROUNDS + 1):
                progress.advanced("federated, weights", done, "error 0.5")
            progress.stage_ended("federated, weights")
            progress.note("The season is switched off.")
            if error is not None:
                raise error
            make_run(folder=folder)
            result = RunResult.read(folder)
            return RunSummary(folder, result.facts.run, result.facts.plan_hash, 1.25)

        monkeypatch.setattr(simulate, "simulate", run)

    return install


@pytest.mark.slow
@pytest.mark.filterwarnings("default:a library warns")
def test_success_is_one_object(engine: Callable[..., None], plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--json: stdout is one object with the agreed keys, whatever a library prints."""
    engine()
    assert main(["simulate", plan, "--json"]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["schema_version"] == 1
    assert {"run", "plan_hash", "seconds", "metrics", "paths"} <= set(answer)
    row = next(row for row in answer["metrics"] if row["scope"] == "federated" and row["horizon"] == "all")
    assert {"model", "scope", "share", "scale", "horizon", "rmse", "mae"} <= set(row)
    assert {row["horizon"] for row in answer["metrics"]} == {"all", *range(1, 8)}
    assert all(Path(path).exists() for path in answer["paths"].values())
    assert printed.err == ""


@pytest.mark.slow
@pytest.mark.filterwarnings("default:a library warns")
def test_success_is_a_closing_block(engine: Callable[..., None], plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The skill table, then SUCCESS, holders, result and places; few lines while it runs; the rest is logged."""
    engine()
    assert main(["simulate", plan, "--set", "training.rounds=3", "--seed", "4"]) == 0
    printed = capsys.readouterr()
    assert "a library" not in printed.out + printed.err
    for words in (
        "SUCCESS",
        "north, south",
        "forecasts better than",
        "model.safetensors",
        "report.html",
        "DHG-SIL, pooled",
    ):
        assert words in printed.out
    assert len(printed.err.splitlines()) <= 2
    log = next(Path(word) for word in printed.out.split() if word.endswith("run.log")).read_text(encoding="utf-8")
    for words in (
        "a library prints",
        "a library warns",
        "a library logs",
        "30 done error 0.5",
        "season is switched off",
    ):
        assert words in log


@pytest.mark.filterwarnings("default:a library warns")
@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (TrainingError("the loss of holder north is not finite; lower the learning rate"), 1, "FAILED"),
        (InputError("the data end too early; use fewer input steps"), 2, "FAILED bad input"),
        (RefusedError("holder south refuses: least group is 10; ask for larger groups"), 3, "REFUSED"),
        (HolderRefusedError("holder south", code="NotApprovedError", number=7), 3, "REFUSED"),
        (RunInterruptedError("stopped; continue with --resume runs/x"), 4, "INTERRUPTED"),
        (KeyboardInterrupt(), 4, "INTERRUPTED"),
        (ZeroDivisionError("division by zero"), 1, "FAILED"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_each_end_has_its_code(
    engine: Callable[..., None], plan: str, capsys: pytest.CaptureFixture[str],
    error: BaseException, code: int, word: str, as_json: bool,
) -> None:  # fmt: skip
    """One cause, the holders, where to look, how to go on; never a traceback on the screen."""
    engine(error)
    assert main(["simulate", plan, *(["--json"] if as_json else [])]) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    if as_json:
        answer = json.loads(printed.out)
        assert set(answer) == {"schema_version", "error"}
        assert answer["error"]["exit_code"] == code
        assert set(answer["error"]) == {"kind", "message", "exit_code"}
        return
    assert printed.out == ""
    assert word in printed.err
    assert "north, south" in printed.err
    assert ("--resume" in printed.err) == (code in (1, 4) or isinstance(error, HolderRefusedError))
    if str(error):
        assert str(error) in printed.err


@pytest.mark.filterwarnings("default:a library warns")
@pytest.mark.parametrize("opened", [True, False])
def test_a_crash_leaves_its_traceback_in_a_log(
    engine: Callable[..., None], plan: str, capsys: pytest.CaptureFixture[str], opened: bool,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Also before a run folder exists; --debug shows it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    engine(ZeroDivisionError("division by zero"), opened=opened)
    assert main(["simulate", plan]) == 1
    printed = capsys.readouterr()
    log = next(Path(word) for word in printed.err.split() if word.endswith(".log"))
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert printed.err.count("ZeroDivisionError") == 1


def test_debug_shows_the_traceback(
    engine: Callable[..., None], plan: str, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """For whoever looks for the bug."""
    warnings.simplefilter("ignore")
    engine(ZeroDivisionError("division by zero"))
    assert main(["simulate", plan, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["frobnicate"], ["simulate"], ["simulate", "no-such-plan.toml"], ["report", "no-such-run"],
        ["simulate", "x.toml", "--seed", "-1"], ["simulate", "x.toml", "--engine", "spark"],
        ["simulate", "x.toml", "--set", "rounds"], ["report", "run", "--frob"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_input_is_exit_code_2(arguments: list[str], as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong word, option, plan or folder: one message or one object, and nothing written."""
    assert main([*arguments, *(["--json"] if as_json else [])]) == 2
    printed = capsys.readouterr()
    if as_json:
        assert json.loads(printed.out)["error"]["exit_code"] == 2
    else:
        assert "cause" in printed.err
        assert printed.out == ""


def test_overrides_are_read_as_pairs() -> None:
    """The value may hold an equals sign; a key without a section is refused."""
    assert overrides(["a.b=c=d", "data.world.n= 3 "]) == {"a.b": "c=d", "data.world.n": "3"}
    with pytest.raises(InputError, match=r"section\.key=value"):
        overrides(["rounds=3"])


@pytest.mark.slow
def test_report_rebuilds_from_the_folder(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    """And says where it is."""
    folder = make_run()
    assert main(["report", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["paths"]["report"] == str(folder / "report.html")
    assert (folder / "report.html").is_file()
    (folder / "flows.csv").unlink()
    assert main(["report", str(folder)]) == 2
    assert "flows.csv" in capsys.readouterr().err


def test_help_is_light_and_documents_the_codes(tmp_path: Path) -> None:
    """--help loads no library for numbers or drawing, shows examples, and the exit codes match the error tree."""
    code = (
        "import sys; from migrafed.__main__ import main\n"
        "try: main(['simulate', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'flwr', 'pandas', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "examples:" in done.stdout
    documented = (Path(simulate.__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for error in (MigrafedError, InputError, RefusedError, RunInterruptedError):
        assert f"\n  {error.exit_code}  " in done.stdout
        assert f"| {error.exit_code} |" in documented


def test_doctor_names_the_fix(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each failed check has one, and one failure is exit code 1."""
    monkeypatch.setattr(
        doctor, "machine_checks", lambda folder: [Check("python", True, "3.11"), free_space("disk", folder, 10**18)]
    )
    assert main(["doctor", "--data", str(tmp_path / "nowhere"), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert [check["ok"] for check in answer["checks"]] == [True, False, False]
    assert all(bool(check["fix"]) != check["ok"] for check in answer["checks"])
    assert main(["doctor"]) == 1
    assert "fix: free space" in capsys.readouterr().out


def test_doctor_reads_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file is found, with its reader's way out."""
    monkeypatch.setattr(doctor, "machine_checks", lambda _folder: [])
    (tmp_path / "counts.parquet").write_bytes(b"PAR1 torn")
    assert main(["doctor", "--data", str(tmp_path)]) == 1
    assert "counts.parquet" in capsys.readouterr().out


@pytest.mark.slow
def test_this_machine_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """The checks hold where the tests run: versions within bounds, packages load, clock and disk in order."""
    code = main(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    wrong = [
        check
        for check in checks
        if not check["ok"] and check["name"] not in ("disk", "temporary", "memory", "encoding")
    ]
    assert not wrong
    assert {"python", "load", "clock"} <= {check["name"] for check in checks}
    assert code in (0, 1)

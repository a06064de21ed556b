"""The made-up world of a plan, written as its holders would have it: a folder for each, the public lists, and a plan
that reads the files.

    made = make_folders(plan, Path("data"), progress=progress)
    simulate(made.plan, data=made.folder)              # or carry made.holders["north"] to the machine of north

=================  ==================================================  ==========================================
source             in each holder's folder                             in ``public``
=================  ==================================================  ==========================================
``synthetic``      ``counts.parquet`` and the public lists             ``regions.csv``, ``series.toml``
``job_queries``    ``queries.toml``, ``queries/``,                     ``cities.csv``
                   ``addresses.mmdb`` and the public list
synthetic calls    ``holder.toml``, ``calls/``,                        nothing
                   ``subscribers.parquet``, ``cells.csv``,
                   ``estates.csv``, ``routing.parquet``
=================  ==================================================  ==========================================

A holder's folder is complete by itself. What was planted stays out: holders would not know it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from clients.desk.calls import HOLDER_FILE, TABLES
from clients.desk.queries import SOURCE_FILE
from dhgsil.formats.parquet import write_parquet
from dhgsil.public_grid import CITIES_FILE, PARQUET, QueryLists, keywords_of, regions_digest, write_public
from dhgsil.readers import COUNTS_FILE
from dhgsil.steps import next_step
from dhgsil.task import JOB_QUERIES, SYNTHETIC, TASK, data_section
from integration.study import MADE_UP
from protocol.errors import PlanError, RunFolderError
from protocol.plan import Plan, parse_config, parse_plan, read_toml
from server.run_folder import plan_text
from simulations.call_data import check_study, world_of
from simulations.progress import Progress, SilentProgress
from simulations.query_records import PUBLIC
from simulations.records import held_rows, load_series
from simulations.worlds.calls import make_call_world, write_calls
from simulations.worlds.job_queries import JobQueryWorld, make_query_world, write_queries

PLAN_FILE = "plan.toml"
_ADDRESSES = "addresses.mmdb"
_CALL_LISTS = ("cells.csv", "estates.csv", "routing.parquet")
_TAKEN = {PUBLIC, "truth", PLAN_FILE}


@dataclass(frozen=True)
class HolderFolders:
    """What was written.

    Args:
        folder: All of it.
        plan: The plan that reads it, as it stands in ``plan.toml``.
    """

    folder: Path
    plan: Plan

    @property
    def plan_file(self) -> Path:
        """The plan as a file."""
        return self.folder / PLAN_FILE

    @property
    def public(self) -> Path:
        """What the coordinator may know."""
        return self.folder / PUBLIC

    @property
    def holders(self) -> Mapping[str, Path]:
        """Each holder's own folder."""
        return {name: self.folder / name for name in self.plan.federation.holders}


def make_folders(plan: Plan, out: Path, *, progress: Progress | None = None) -> HolderFolders:
    """Write the made-up world of a plan; the same plan gives the same files.

    Args:
        plan: A plan that makes up its data.
        out: New or empty; it appears whole or not at all.
        progress: Told what happens.

    Raises:
        RunFolderError: `out` is not empty, or cannot be made.
        PlanError: the plan reads data that are there already, or a holder's name cannot be that of a folder.
    """
    for name in plan.federation.holders:
        if Path(name).name != name or name in _TAKEN or name.startswith("."):
            raise PlanError(f"holder '{name}' cannot be the name of a folder here; use letters, digits, '-' and '_'")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out} already holds something; choose another --out")
    draft = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        (draft / PUBLIC).mkdir(parents=True)
        for name in plan.federation.holders:
            (draft / name).mkdir(mode=0o700)
        real = _writer(plan)(plan, draft, progress or SilentProgress())
        (draft / PLAN_FILE).write_text(plan_text(real), encoding="utf-8")
        if out.exists():
            out.rmdir()
        draft.rename(out)
    except OSError as error:
        raise RunFolderError(f"cannot write {out} ({error.strerror}); choose another --out, or make room") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return HolderFolders(out, real)


def _writer(plan: Plan) -> Any:
    source, world = plan.data.get("source"), plan.data.get("world")
    if source == SYNTHETIC:
        return _write_counts
    if source == JOB_QUERIES and world is not None:
        return _write_job_queries
    if source == MADE_UP:
        return _write_calls
    raise PlanError(
        f'the plan reads source = "{source}", whose data are there already; give a plan with a made-up world'
    )


def _write_counts(plan: Plan, folder: Path, progress: Progress) -> Plan:
    progress.stage_started("made-up counts", 1)
    series = held_rows(load_series(plan, TASK, None), plan)
    write_public(series, folder / PUBLIC)
    for name, codes in plan.federation.holders.items():
        write_public(series, folder / name)
        write_parquet(series.held_by(codes), folder / name / COUNTS_FILE)
    progress.stage_ended("made-up counts")
    last = next_step(series.times[-1], series.step) - 1
    days = {"start": str(series.times[0]), "end": str(last)}
    public = regions_digest(series.regions, series.step, series.provenance.country)
    return _reading(plan, {"source": PARQUET, "public": public, **days})


def _write_job_queries(plan: Plan, folder: Path, progress: Progress) -> Plan:
    data, log = data_section(plan), folder / "log"
    world = make_query_world(parse_config(JobQueryWorld, data.world or {}, where="[data.world]"), plan.run.seed)
    calendar = world.calendar
    progress.stage_started("made-up queries", world.config.queries)
    write_queries(
        world, log, holders=plan.federation.holders, progress=lambda rows: progress.advanced("made-up queries", rows)
    )
    progress.stage_ended("made-up queries")
    shutil.copy(log / CITIES_FILE, folder / PUBLIC)
    for name in plan.federation.holders:
        own = folder / name
        (log / name / "queries").rename(own / "queries")
        for public in (CITIES_FILE, _ADDRESSES):
            shutil.copy(log / public, own)
        described = read_toml(log / name / SOURCE_FILE, what="description") | {"ip_database": _ADDRESSES}
        (own / SOURCE_FILE).write_text(tomli_w.dumps(described), encoding="utf-8")
    shutil.rmtree(log)
    days = {"start": data.start or str(calendar.start), "end": data.end or str(calendar.end)}
    queries: Any = dict(plan.data.get("queries") or {}) | {"step": calendar.step, "zone": calendar.zone}  # type: ignore[call-overload]
    public = QueryLists(world.cities, calendar, keywords_of(plan, None)).digest()
    return _reading(plan, {"queries": queries, "public": public, **days})


def _write_calls(plan: Plan, folder: Path, progress: Progress) -> Plan:
    study, city = check_study(plan, None), folder / "city"
    if study.pushes == "L0":
        raise PlanError('pushes = "L0" tells others everything and is for simulations alone; set "none", "L1" or "L2"')
    world = make_call_world(world_of(plan), plan.run.seed)
    progress.stage_started("made-up city", world.config.blocks)
    write_calls(world, city, progress=lambda done, _: progress.advanced("made-up city", done))
    progress.stage_ended("made-up city")
    for name in plan.federation.holders:
        own = folder / name
        (city / name / "calls").rename(own / "calls")
        (city / name / "subscribers.parquet").rename(own / "subscribers.parquet")
        for public in _CALL_LISTS:
            shutil.copy(city / public, own)
        sections = read_toml(city / name / HOLDER_FILE, what="description")
        beside = {
            section: {key: str(value).removeprefix("../") if key in TABLES else value for key, value in keys.items()}
            for section, keys in sections.items()
        }
        (own / HOLDER_FILE).write_text(tomli_w.dumps(beside), encoding="utf-8")
    shutil.rmtree(city)
    return _reading(plan, {"source": "calls"})


def _reading(plan: Plan, data: Mapping[str, Any]) -> Plan:
    """The plan that reads what was written; errors on the truth, which nobody has then, are measured no more."""
    values = plan.model_dump(mode="json")
    values["data"] = {key: value for key, value in (values["data"] | data).items() if key != "world"}
    if plan.privacy is not None and plan.privacy.mode == "counts":
        values["privacy"]["score_against"] = "released"
    return parse_plan(values)

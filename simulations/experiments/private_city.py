"""Rows of a made-up city for private training, for `simulations.experiments.private_rows`.

    python -m simulations.experiments.private_city --out FOLDER --scale 0.015

One operator has everybody. Two weeks: the first says who is settled, the second is learnt from. Numbers that nobody
knows do not call each other here, which changes no row. Writes `rows-K.parquet` for each K: K = 0 own features, K >= 1
capped ones beside them, both as a holder would make them (`integration.features.private_rows`).
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path

from clients.desk.calls import tables_of
from integration.catalogue import FAMILIES, primary
from integration.features.assembling import assemble
from integration.features.counts import count_weeks
from integration.features.private_rows import person_rows
from integration.records.records import CallRecords, read_records
from integration.rules import CallRules, City
from integration.weeks import CallCalendar
from protocol.plan import parse_config
from simulations.worlds.calls import CallWorldConfig, make_call_world, write_calls
from tables.engine import Engine, Limits

OPERATOR = "city"
ORDINARY = "rows-ordinary.parquet"


def city_records(scale: float, seed: int, work: Path, engine: Engine) -> CallRecords:
    """The call records of a made-up city, read as a holder reads its own."""
    calendar = CallCalendar(weeks=2)
    asked = {
        "scale": scale, "operators": {OPERATOR: 1.0}, "calendar": calendar, "background_calls": 0.0, "holiday": (),
        "makeup": (),
    }  # fmt: skip
    world = make_call_world(parse_config(CallWorldConfig, asked, where="city"), seed)
    write_calls(world, work / "city")
    folder, staging = work / "city" / OPERATOR, work / "staging"
    staging.mkdir(mode=0o700)
    return read_records(
        tables_of(folder), base=folder, calendar=calendar, city=City(), rules=CallRules(), engine=engine,
        workdir=staging,
    )  # fmt: skip


def main() -> None:
    """Parse arguments, make a city, write its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=0.015)
    parser.add_argument("--contacts", type=int, nargs="+", default=[0, 1, 5])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ordinary", action="store_true", help="also the features that no cap protects, to compare")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    secret = hashlib.sha256(f"made-up city {given.seed}".encode()).digest()
    with (
        tempfile.TemporaryDirectory(dir=given.out) as work,
        Engine.duckdb(Limits(memory_gb=2.0, threads=1), Path(work)) as engine,
    ):
        records = city_records(given.scale, given.seed, Path(work), engine)
        for contacts in given.contacts:
            rows = person_rows(records, engine, contacts=contacts, secret=secret)
            rows.to_parquet(given.out / f"rows-{contacts}.parquet")
            print(f"K {contacts}: {len(rows)} rows, {rows['group'].value_counts().to_dict()}", flush=True)
        if given.ordinary:
            counts = count_weeks(records, engine)
            rows = assemble(counts, records.people, city=records.city, rules=records.rules)
            rows[["person", "week", "group", *primary(FAMILIES)]].to_parquet(given.out / ORDINARY)
            print(f"ordinary: {len(rows)} rows", flush=True)


if __name__ == "__main__":
    main()

"""A table is held against its contract column by column; findings never hold a value of a row."""

import pyarrow as pa
import pytest

from protocol.errors import DataError, PlanError
from tables.checks import check_schema, refuse_failed
from tables.contracts import Column, kind_of_type

TIME = Column(role="time", name="time", kinds=("timestamp", "text"))
USER = Column(role="user", name="uid", kinds=("text", "integer"))
CITY = Column(role="destination", name="city", kinds=("text",), required=False)


def test_a_table_that_fits_has_no_failed_finding() -> None:
    schema = pa.schema(
        [("time", pa.timestamp("ms", "UTC")), ("uid", pa.dictionary(pa.int32(), pa.string())), ("x", pa.int8())]
    )
    findings = check_schema(schema, [TIME, USER, CITY])
    assert [finding.status for finding in findings] == ["ok", "ok", "note"]
    refuse_failed(findings, source="queries")


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        (pa.schema([("uid", pa.string())]), "missing; the table has uid"),
        (pa.schema([("Time", pa.string()), ("uid", pa.string())]), "missing; the table has Time"),
        (pa.schema([("time", pa.int64()), ("uid", pa.string())]), "int64"),
        (pa.schema([("time", pa.string()), ("time", pa.string()), ("uid", pa.string())]), "there 2 times"),
    ],
)
def test_what_does_not_fit_is_named_with_a_way_out(schema: pa.Schema, found: str) -> None:
    findings = check_schema(schema, [TIME, USER])
    failed = [finding for finding in findings if finding.status == "failed"]
    assert [(finding.column, finding.found) for finding in failed] == [("time", found)]
    assert failed[0].way_out
    with pytest.raises(DataError, match=r"queries, column 'time': column for the time"):
        refuse_failed(findings, source="queries")


def test_nulls_alone_are_of_any_kind() -> None:
    assert check_schema(pa.schema([("time", pa.null())]), [TIME])[0].status == "ok"


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        (pa.string(), "text"),
        (pa.string_view(), "text"),
        (pa.uint64(), "integer"),
        (pa.decimal128(38, 0), "integer"),
        (pa.decimal128(10, 2), "number"),
        (pa.float32(), "number"),
        (pa.timestamp("ns"), "timestamp"),
        (pa.date32(), "date"),
        (pa.bool_(), "truth"),
        (pa.binary(16), "bytes"),
        (pa.list_(pa.string()), None),
    ],
)
def test_kinds(type_: pa.DataType, kind: str | None) -> None:
    assert kind_of_type(type_) == kind


def test_a_contract_of_unknown_kinds_is_refused() -> None:
    with pytest.raises(PlanError, match="of no kind"):
        Column(role="time", name="time", kinds=())
    with pytest.raises(PlanError, match="may be colour"):
        Column(role="time", name="time", kinds=("colour",))  # type: ignore[arg-type]

"""Broken connections are logged, but not without end; and a certificate that cannot be used is said."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from protocol.errors import PlanError
from server.link import tls
from server.link.tls import Rationed, server_context
from server.settings import SERVER_CERTIFICATE, SERVER_KEY
from tests.coordinator_places import coordinator_place


def test_nobody_fills_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 600.0
    monkeypatch.setattr(tls.time, "monotonic", lambda: now)
    ration = Rationed(3)
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            ration.warn("broken")
        assert [record.getMessage() for record in caplog.records] == ["TLS: broken"] * 3
        now += 60
        ration.warn("broken again")
    assert [record.getMessage() for record in caplog.records[3:]] == [
        "TLS: 7 more broken connections were not logged",
        "TLS: broken again",
    ]
    assert time.monotonic() == now


@pytest.mark.parametrize("name", [SERVER_CERTIFICATE, SERVER_KEY])
@pytest.mark.parametrize("other", [True, False], ids=["another's", "none"])
def test_a_pair_that_does_not_fit_is_said(tmp_path: Path, name: str, *, other: bool) -> None:
    place, another = coordinator_place(tmp_path / "a"), coordinator_place(tmp_path / "b")
    place.own(name).write_bytes(another.own(name).read_bytes() if other else b"nothing")
    with pytest.raises(PlanError, match="migrafed server certificate"):
        server_context(place)

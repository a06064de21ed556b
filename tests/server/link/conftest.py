"""One SuperLink for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.coordinator_places import coordinator_place
from tests.server_links import RunningLink, running_link


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLink]:
    with running_link(coordinator_place(tmp_path_factory.mktemp("coordinator") / "c")) as running:
        yield running

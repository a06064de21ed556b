"""A release that is cut at its write boundaries: never two releases of one step, never an allowance exceeded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_release_survives_cuts_at_its_write_boundaries(tmp_path: Path) -> None:
    """Every nineteenth state; `python -m tests.release_cuts FOLDER` goes through all of them."""
    command = [sys.executable, "-m", "tests.release_cuts", str(tmp_path), "19"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["boundaries"] > 100
    assert figures["cuts"] > 12
    assert figures["released_before_the_cut"] > 5

"""The bundle is the same bytes everywhere, Flower takes it, and it does nothing."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import zipfile

import pytest
from flwr.common.config import get_fab_config

from protocol.bundle import bundle, bundle_of


def test_the_digest_is_that_of_the_content() -> None:
    assert bundle().digest == hashlib.sha256(bundle().content).hexdigest()


def test_bytes_do_not_depend_on_the_machine() -> None:
    """Written down once: whoever changes the bundle's text must know that nodes of the version before refuse it."""
    assert bundle_of("0.1.0", 1).digest == "cd12fe4fa3e87700eda4bb0c48c02fee6a13855b8eaf08b651d10143547f0e99"


def test_bytes_do_not_depend_on_the_process() -> None:
    code = "from protocol.bundle import bundle; print(bundle().digest)"
    other = os.environ | {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    result = subprocess.run([sys.executable, "-c", code], env=other, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == bundle().digest


def test_another_version_is_another_bundle() -> None:
    """A node of an older release, or of another protocol, refuses the run."""
    assert len({bundle_of("0.1.0", 1).digest, bundle_of("0.1.1", 1).digest, bundle_of("0.1.0", 2).digest}) == 3


def test_it_is_loaded_without_flower() -> None:
    """A node's executor makes it too, and must be light."""
    code = "import sys, protocol.bundle; sys.exit(any(name in sys.modules for name in ('flwr', 'torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_flower_finds_its_way_about_it() -> None:
    config = get_fab_config(bundle().content)
    assert config["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "refusal.app:server",
        "clientapp": "refusal.app:client",
    }
    with zipfile.ZipFile(io.BytesIO(bundle().content)) as folder:
        listed = folder.read(".info/CONTENT").decode().splitlines()
        for line in listed:
            path, digest, bits = line.split(",")
            content = folder.read(path)
            assert (digest, int(bits)) == (hashlib.sha256(content).hexdigest(), 8 * len(content))
        assert {line.split(",")[0] for line in listed} == set(folder.namelist()) - {".info/CONTENT"}


@pytest.mark.parametrize("kind", ["train", "evaluate", "query"])
def test_its_app_refuses_everything(kind: str) -> None:
    with zipfile.ZipFile(io.BytesIO(bundle().content)) as folder:
        names: dict[str, object] = {}
        exec(folder.read("refusal/app.py"), names)  # noqa: S102  what a node would do
    with pytest.raises(RuntimeError, match="holder node"):
        names[f"refuse_{kind}"](None, None)  # type: ignore[operator]
    with pytest.raises(RuntimeError, match="server run"):
        names["refuse_run"](None, None)  # type: ignore[operator]

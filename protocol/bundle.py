"""The app bundle that a deployed run uploads: constant bytes, and a program in it that refuses to do anything.

Flower ships the coordinator's app bundle to every node and runs what it finds there. Here nobody runs it: the
coordinator drives its run itself, and a node's own program asks the agent, once it has seen that the bundle is this
one. So two installations of one version agree on its hash without having exchanged it::

    bundle().digest == bundle().digest      # anywhere, on any machine

Files are stored, not compressed: another zlib would give other bytes.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from protocol.version import PROTOCOL_VERSION

_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX, _MODE = 3, 0o100644 << 16
_PROJECT = """\
[project]
name = "migrafed-refusal"
version = "{version}"
description = "Stands for migrafed {version}, protocol {protocol}. Holds no program that does anything."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "migrafed"

[tool.flwr.app.components]
serverapp = "refusal.app:server"
clientapp = "refusal.app:client"
"""
_APP = '''\
"""Refuses. Runs of migrafed are carried out by the programs that a holder and the coordinator installed themselves.

A node that loads this bundle was started the wrong way: start it with "migrafed holder node".
"""

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

WHY = "this bundle does nothing: start a node with 'migrafed holder node' and a run with 'migrafed server run'"
server, client = ServerApp(), ClientApp()


@server.main()
def refuse_run(grid, context):
    raise RuntimeError(WHY)


@client.train()
def refuse_train(message, context):
    raise RuntimeError(WHY)


@client.evaluate()
def refuse_evaluate(message, context):
    raise RuntimeError(WHY)


@client.query()
def refuse_query(message, context):
    raise RuntimeError(WHY)
'''


@dataclass(frozen=True)
class Bundle:
    """A Flower app bundle.

    Args:
        content: The archive.
        digest: Its SHA-256, 64 hexadecimal digits, as Flower names it.
    """

    content: bytes
    digest: str


@cache
def bundle() -> Bundle:
    """The bundle of this installation; depends on the versions of migrafed and of its protocol, on nothing else."""
    return bundle_of(version("migrafed"), PROTOCOL_VERSION)


def bundle_of(release: str, protocol: int) -> Bundle:
    """The bundle of a release of migrafed."""
    files = {
        "pyproject.toml": _PROJECT.format(version=release, protocol=protocol),
        "refusal/__init__.py": "",
        "refusal/app.py": _APP,
    }
    listed = (
        f"{path},{hashlib.sha256(text.encode()).hexdigest()},{len(text.encode()) * 8}" for path, text in files.items()
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as folder:
        for path, text in (files | {".info/CONTENT": "\n".join(listed)}).items():
            folder.writestr(_entry(path), text.encode())
    return Bundle(archive.getvalue(), hashlib.sha256(archive.getvalue()).hexdigest())


def _entry(path: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, date_time=_DATE)
    entry.create_system, entry.external_attr = _UNIX, _MODE
    return entry

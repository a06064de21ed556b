"""`migrafed server resume RUN`: go on with a run from its last committed round."""

from __future__ import annotations

import argparse

from migrafed.commands.server_run import carried_out
from migrafed.folders import given_folder
from migrafed.terminal import Outcome, Terminal
from server.run_folder import locked_plan
from server.settings import load_server


def run(options: argparse.Namespace, terminal: Terminal) -> Outcome:
    """Go on with the run in a folder, with the plan that is locked into it."""
    folder = given_folder(options.run, what="the folder of a run")
    return carried_out(locked_plan(folder), load_server(options.server), terminal, resume=folder)

"""`migrafed report`: check the folder of a finished run and rebuild its report from it alone."""

from __future__ import annotations

import argparse

from migrafed.deployed_summary import deployed_facts
from migrafed.integration_summary import integration_facts
from migrafed.reports.deployed import write_deployed_report
from migrafed.reports.forecast import write_report
from migrafed.reports.integration import write_integration_report
from migrafed.summary import result_facts
from migrafed.terminal import Outcome, Terminal
from server.deployed_facts import DeployedResult
from server.sealing import is_deployed, task_of
from simulations.call_results import INTEGRATION_TASKS, IntegrationResult
from simulations.results import RunResult


def run(options: argparse.Namespace, _terminal: Terminal) -> Outcome:
    """Check the folder, rebuild `report.html`, say where it is."""
    if is_deployed(options.run):
        result = DeployedResult.read(options.run)
        paths, facts = deployed_facts(result, write_deployed_report(result))
    elif task_of(options.run) in INTEGRATION_TASKS:
        result = IntegrationResult.read(options.run)
        paths, facts = integration_facts(result, write_integration_report(result))
    else:
        result = RunResult.read(options.run)
        paths, facts = result_facts(result, write_report(result))
    payload = {"run": result.facts.run, "plan_hash": result.facts.plan_hash, "paths": paths}
    return Outcome(payload, f"SUCCESS {result.facts.run}, report rebuilt", facts)

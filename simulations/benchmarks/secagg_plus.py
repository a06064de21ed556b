"""Flower's own SecAgg+, run as it stands, for comparison with our masked sums.

`SecAggPlusWorkflow` of Flower drives ClientApps with its `secaggplus_mod` over the grid inside this process. Timed are,
for a holder, what the mod does in all four stages, without the call of the training below it; for the server, what the
workflow does, without the grid and without the strategy, which only takes what is handed to it. Copies that the grid
makes of messages are counted on neither side. Every holder is a neighbour of every other one (`num_shares` 1.0), and
the threshold is ours. Who drops out does so before it masks, as in ours.

What it does not do, and ours does: sign keys, check who is left, and mask with a cipher (`pseudo_rand_gen` seeds
numpy's Mersenne Twister with 32 bits).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import Code, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.serde import recorddict_to_proto
from flwr.compat.common.recorddict_compat import fitres_to_recorddict, parameters_to_arrayrecord
from flwr.server.client_manager import SimpleClientManager
from flwr.server.compat.grid_client_proxy import GridClientProxy
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey

from protocol.errors import TrainingError
from simulations.benchmarks.masked_costs import Cost, Scenario
from simulations.grid import FIRST_NODE, NODE_NAME, InProcessGrid

CLIP = 8.0
"""Flower's default range of values, which is also the range of what is summed here."""


class _Given(FedAvg):
    """Asks everybody, and keeps the mean that the workflow hands over."""

    def aggregate_fit(self, server_round, results, failures):
        return results[0][1].parameters, {}


class _TimedGrid(InProcessGrid):
    """Knows how long it took, so that its time can be left out."""

    seconds = 0.0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        start = time.process_time()
        replies = super().send_and_receive(messages, timeout=timeout)
        self.seconds += time.process_time() - start
        return replies


class _Holders:
    """The ClientApp of all holders: what each puts in, who drops out, and what the mod costs each."""

    def __init__(self, inputs: dict[str, np.ndarray], dropouts: frozenset[str]) -> None:
        self._inputs, self._dropouts = inputs, dropouts
        self.seconds = dict.fromkeys(inputs, 0.0)
        self.sent = dict.fromkeys(inputs, 0)
        self._training = 0.0
        self.app = ClientApp(mods=[self._timed])
        self.app.train()(self._train)

    def _timed(self, message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
        name = str(context.node_config[NODE_NAME])
        stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
        if name in self._dropouts and stage == Stage.COLLECT_MASKED_VECTORS:
            raise TrainingError(f"'{name}' is gone; it is not to be asked again")
        start, self._training = time.process_time(), 0.0
        reply = secaggplus_mod(message, context, call_next)
        self.seconds[name] += time.process_time() - start - self._training
        self.sent[name] += recorddict_to_proto(reply.content).ByteSize()
        return reply

    def _train(self, message: Message, context: Context) -> Message:
        """The update itself, made without any training; not counted."""
        start = time.process_time()
        update = ndarrays_to_parameters([self._inputs[str(context.node_config[NODE_NAME])]])
        result = FitRes(status=Status(Code.OK, ""), parameters=update, num_examples=1, metrics={})
        reply = Message(fitres_to_recorddict(result, keep_input=False), reply_to=message)
        self._training = time.process_time() - start
        return reply


def flower_cost(scenario: Scenario, words: int) -> Cost:
    """One sum by SecAgg+; its result is compared with the plain mean.

    Raises:
        TrainingError: the workflow broke off, or its mean is not that of the survivors.
    """
    names, dropouts = scenario.names, frozenset(scenario.late)
    draw = np.random.default_rng(0)
    inputs = {name: draw.uniform(-1, 1, words) for name in names}
    holders = _Holders(inputs, dropouts)
    grid = _TimedGrid(holders.app, names)
    # Weights are the public 1 of everybody, so the range of values is all there is to quantise.
    workflow = SecAggPlusWorkflow(1.0, scenario.threshold, max_weight=1.0, clipping_range=CLIP)
    context = _context(grid, words)
    start = time.process_time()
    workflow(grid, context)
    server = time.process_time() - start - grid.seconds
    left = [name for name in names if name not in dropouts]
    _check(context, np.mean([inputs[name] for name in left], axis=0))
    return Cost(
        holder=float(np.median([holders.seconds[name] for name in left])),
        server=server,
        sent=float(np.median([holders.sent[name] for name in left])) / (4 * words),
    )


def _context(grid: InProcessGrid, words: int) -> LegacyContext:
    """What Flower's server app makes before its workflows."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    nodes = grid.get_node_ids()
    manager = SimpleClientManager()
    for node in nodes:
        manager.register(GridClientProxy(node, grid, 1))
    strategy = _Given(min_fit_clients=len(nodes), min_available_clients=len(nodes))
    plain = Context(run_id=1, node_id=FIRST_NODE - 1, node_config={}, state=RecordDict(), run_config={})
    context = LegacyContext(plain, strategy=strategy, client_manager=manager)
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    start: Parameters = ndarrays_to_parameters([np.zeros(words)])
    context.state.array_records[MAIN_PARAMS_RECORD] = parameters_to_arrayrecord(start, keep_input=False)
    return context


def _check(context: LegacyContext, expected: np.ndarray) -> None:
    record = context.state.array_records[MAIN_PARAMS_RECORD]
    [found] = parameters_to_ndarrays(Parameters([array.data for array in record.values()], "numpy.ndarray"))
    if not np.allclose(found, expected, atol=1e-4):
        raise TrainingError("SecAgg+ did not give the mean of those who are left; the comparison means nothing")

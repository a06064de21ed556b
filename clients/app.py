"""The Flower ClientApp: a relay that turns records into typed messages for the agent, and its answers back.

`relay` binds the app to whatever finds the agent of a node: a dictionary in a simulation, a socket in a deployment.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.agent import HolderAgent
from protocol.masked_messages import MASKED, MaskedRequest
from protocol.messages import EXCHANGE, ExchangeRequest, RoundRequest, StatisticsRequest

AgentOf = Callable[[Context], HolderAgent]


def relay(agent_of: AgentOf) -> ClientApp:
    """A ClientApp that answers every message through the agent of its node."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        reply = agent_of(context).statistics(StatisticsRequest.from_records(message.content))
        return Message(content=reply.to_records(), reply_to=message)

    @app.query(EXCHANGE)
    def exchange(message: Message, context: Context) -> Message:
        reply = agent_of(context).exchange(ExchangeRequest.from_records(message.content))
        return Message(content=reply.to_records(), reply_to=message)

    @app.query(MASKED)
    def masked(message: Message, context: Context) -> Message:
        reply = agent_of(context).masked(MaskedRequest.from_records(message.content))
        return Message(content=reply.to_records(), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = agent_of(context).train(RoundRequest.from_records(message.content))
        return Message(content=reply.to_records(), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        reply = agent_of(context).evaluate(RoundRequest.from_records(message.content))
        return Message(content=reply.to_records(), reply_to=message)

    return app

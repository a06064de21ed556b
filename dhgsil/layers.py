"""The DH-GCN: similarity travels along geography, difference along mobility, a gate weighs them per region and channel.

One layer, with H (N, C) the state of the regions, S the geographic low-pass operator, P and R the out and in views of
mobility::

    G = S H W_g        D_out = (I - P) H W_out        D_in = (I - R) H W_in
    beta = sigmoid([G | D_out | D_in] W_beta + b_beta)
    H' = LayerNorm(H + ReLU(beta * G + (1 - beta) * (D_out + D_in) / 2))

Products are taken as A @ (H W), weights first: for C smaller than N this is the cheaper order.
A re-design that satisfies what is known of the paper's homophily and discrepancy co-preserving convolution; the
equations are ours.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dhgsil.model_config import ModelConfig


def propagate(operator: Tensor, states: Tensor) -> Tensor:
    """A @ X for a dense operator, batched or not, or a sparse one (compressed rows; shared by all windows).

    Shapes: operator (N, N) or (B, N, N), states (B, N, C) -> (B, N, C)
    """
    if operator.layout == torch.strided:
        return torch.matmul(operator, states)
    batch, n, channels = states.shape
    wide = states.transpose(0, 1).reshape(n, batch * channels)
    return (operator @ wide).reshape(n, batch, channels).transpose(0, 1)


class DHGCNLayer(nn.Module):
    """One layer of the DH-GCN; see the module docstring for the equations.

    `config.mobility` chooses what travels along mobility: "diff" the difference I - P, "lowpass" the mean P itself,
    "signed" a learnt sign and weight tanh(a [h_i | h_j]) per edge, "off" nothing. Without geography and mobility S is
    the identity, so that the ablation "no graph" keeps the number of parameters of a graph layer.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.mobility, self.geography = config.mobility, config.geography
        self.geography_map = nn.Linear(channels, channels, bias=False)
        self.out_map = nn.Linear(channels, channels, bias=False)
        self.in_map = nn.Linear(channels, channels, bias=False)
        self.gate = nn.Linear(3 * channels, channels)
        self.norm = nn.LayerNorm(channels)
        if config.mobility == "signed":
            self.out_sign, self.in_sign = nn.Linear(2 * channels, 1), nn.Linear(2 * channels, 1)

    def forward(self, states: Tensor, geography: Tensor, out_view: Tensor, in_view: Tensor) -> Tensor:
        """Shapes: states (B, N, C), geography (N, N), out_view and in_view (B, N, N) -> (B, N, C)"""
        message = self._message(states, geography, out_view, in_view)
        return self.norm(states + torch.relu(message))

    def _message(self, states: Tensor, geography: Tensor, out_view: Tensor, in_view: Tensor) -> Tensor:
        if self.mobility == "off":
            mapped = self.geography_map(states)
            return propagate(geography, mapped) if self.geography else mapped
        out = self._along(out_view, states, self.out_map(states), "out")
        into = self._along(in_view, states, self.in_map(states), "in")
        if not self.geography:
            return (out + into) / 2
        near = propagate(geography, self.geography_map(states))
        beta = torch.sigmoid(self.gate(torch.cat([near, out, into], dim=-1)))
        return beta * near + (1 - beta) * (out + into) / 2

    def _along(self, view: Tensor, states: Tensor, mapped: Tensor, direction: str) -> Tensor:
        if self.mobility == "diff":
            return mapped - propagate(view, mapped)
        if self.mobility == "lowpass":
            return propagate(view, mapped)
        scorer = self.out_sign if direction == "out" else self.in_sign
        here, there = scorer.weight[0].chunk(2)
        score = (states @ here)[..., :, None] + (states @ there)[..., None, :] + scorer.bias
        return propagate(torch.tanh(score) * view, mapped)


class RegionEncoder(nn.Module):
    """Regions' features over the input steps -> origin roles U and destination roles V, through the DH-GCN.

    H0 = ReLU([x | e] W_0) with a learnt embedding e per region; U = H W_U, V = H W_V after the last layer.
    """

    def __init__(self, config: ModelConfig, *, num_regions: int, node_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.1 * torch.randn(num_regions, config.region_embedding))
        self.input_map = nn.Linear(node_dim + config.region_embedding, config.channels)
        self.layers = nn.ModuleList(DHGCNLayer(config) for _ in range(config.layers))
        self.origin_map = nn.Linear(config.channels, config.channels, bias=False)
        self.destination_map = nn.Linear(config.channels, config.channels, bias=False)

    def forward(
        self, nodes: Tensor, geography: Tensor, out_view: Tensor, in_view: Tensor, dropout: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Roles U and V of all regions.

        `dropout` holds ready masks (0 or 1 / keep probability), drawn by the caller, one per layer.

        Shapes: nodes (B, N, F), geography (N, N), views (B, N, N), dropout (B, layers, N, C) -> U, V (B, N, C)
        """
        embedding = self.embedding.expand(*nodes.shape[:-2], *self.embedding.shape)
        states = torch.relu(self.input_map(torch.cat([nodes, embedding], dim=-1)))
        for depth, layer in enumerate(self.layers):
            states = layer(states, geography, out_view, in_view)
            if dropout is not None:
                states = states * dropout[:, depth]
        return self.origin_map(states), self.destination_map(states)

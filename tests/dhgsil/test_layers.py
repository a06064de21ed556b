"""T7: the layer's operators; what travels along geography and what along mobility."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from dhgsil.graphs import geography_operator, mobility_operators
from dhgsil.layers import DHGCNLayer, RegionEncoder, propagate
from dhgsil.model_config import ModelConfig

N, C = 9, 4


def views(seed: int = 0, *, reverse: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    flow = np.random.default_rng(seed).gamma(1.0, size=(N, N))
    out, into = mobility_operators(flow.T if reverse else flow)
    return torch.as_tensor(out, dtype=torch.float32)[None], torch.as_tensor(into, dtype=torch.float32)[None]


def layer(mobility: str) -> DHGCNLayer:
    torch.manual_seed(0)
    return DHGCNLayer(ModelConfig(channels=C, mobility=mobility))  # type: ignore[arg-type]


def test_t7_constant_states_have_no_difference() -> None:
    """(I - P) H = 0 where all regions are alike; the low-pass switch does not have this property."""
    out, _ = views()
    alike = torch.ones(1, N, 1) * torch.randn(1, 1, C)
    difference, lowpass = layer("diff"), layer("lowpass")
    mapped = difference.out_map(alike)
    assert difference._along(out, alike, mapped, "out").abs().max() < 1e-6
    assert lowpass._along(out, alike, mapped, "out").abs().max() > 1e-2


def test_t7_reversed_flow_swaps_the_roles_under_tied_weights() -> None:
    """With M transposed and tied out and in weights, origin and destination roles swap."""
    torch.manual_seed(1)
    config = ModelConfig(channels=C, region_embedding=0)
    encoder = RegionEncoder(config, num_regions=N, node_dim=3)
    for one in encoder.layers:
        one.in_map.weight = one.out_map.weight  # type: ignore[union-attr,assignment]
        gate: torch.Tensor = one.gate.weight.data  # type: ignore[union-attr,assignment]
        gate[:, 2 * C :] = gate[:, C : 2 * C]
    nodes = torch.randn(1, N, 3)
    geography = torch.eye(N)
    u, v = encoder(nodes, geography, *views())
    encoder.origin_map, encoder.destination_map = encoder.destination_map, encoder.origin_map
    u_swapped, v_swapped = encoder(nodes, geography, *views(reverse=True))
    torch.testing.assert_close(u_swapped, v)
    torch.testing.assert_close(v_swapped, u)
    assert not torch.allclose(u, v)


def test_gate_weighs_geography_against_mobility() -> None:
    """With the gate pushed to 1 only geography acts, pushed to 0 only the difference along mobility."""
    states, near, (out, into) = torch.randn(1, N, C), torch.rand(N, N), views()
    one = layer("diff")
    with torch.no_grad():
        one.gate.weight.zero_()
        for push, expected in (
            (50.0, near @ one.geography_map(states)),
            (
                -50.0,
                sum(one._along(v, states, m(states), "out") / 2 for v, m in ((out, one.out_map), (into, one.in_map))),
            ),
        ):
            one.gate.bias.fill_(push)
            torch.testing.assert_close(one._message(states, near, out, into), expected)


@pytest.mark.parametrize("mobility", ["diff", "lowpass", "signed", "off"])
@pytest.mark.parametrize("geography", [True, False])
def test_every_switch_reads_exactly_its_graphs(mobility: str, geography: bool) -> None:
    """A layer's output depends on a graph if and only if its switch is on."""
    torch.manual_seed(0)
    one = DHGCNLayer(ModelConfig(channels=C, mobility=mobility, geography=geography))  # type: ignore[arg-type]
    states, near, (out, into) = torch.randn(1, N, C), torch.eye(N), views()
    base = one(states, near, out, into)
    assert torch.allclose(base, one(states, near.roll(1, 0), out, into)) is not geography
    assert torch.allclose(base, one(states, near, *views(5))) is (mobility == "off")


def test_sparse_and_dense_propagation_agree() -> None:
    """The sparse path gives the dense result, for several windows at once."""
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 1000, (40, 2))
    operator = torch.as_tensor(
        geography_operator(np.linalg.norm(places[:, None] - places[None], axis=-1)), dtype=torch.float32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sparse = operator.to_sparse_csr()
    states = torch.randn(3, 40, 5)
    torch.testing.assert_close(propagate(sparse, states), propagate(operator, states))

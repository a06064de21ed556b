"""T11: contrastive and ordering losses, and that holders' losses add up to the pooled one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dhgsil.losses import example_losses, ordering_loss, rank_n_contrast
from dhgsil.margins import margins_of


def circle(degrees: np.ndarray) -> torch.Tensor:
    angle = torch.as_tensor(np.radians(degrees))
    return torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)


ORDERED = circle(np.arange(50) * 90 / 50)
LABELS = torch.arange(1, 51, dtype=torch.float64) / 50
SHUFFLED = ORDERED[torch.as_tensor(np.random.default_rng(0).permutation(50))]
EQUAL = ORDERED[:1].expand(50, 2)


def brute_force(projections: torch.Tensor, labels: torch.Tensor, *, slack: float = 1e-9) -> float:
    """The formula of the spec with its three loops, temperature 0.2; distances within `slack` count as equal."""
    n, total = len(labels), 0.0
    similarity = (projections @ projections.T / 0.2).numpy()
    gap = (labels[:, None] - labels[None, :]).abs().numpy()
    for i in range(n):
        for j in range(n):
            if i != j:
                far = [m for m in range(n) if m != i and gap[i, m] >= gap[i, j] - slack]
                total -= similarity[i, j] - np.log(np.exp(similarity[i, far]).sum())
    return total / (n * (n - 1))


@pytest.mark.parametrize(
    ("projections", "labels", "expected"),
    [
        (ORDERED, LABELS, 2.3299),
        (SHUFFLED, LABELS, 3.3080),
        (EQUAL, LABELS, 2.9537),
        (circle(np.array([0.0, 45.0, 90.0])), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), 0.2406),
    ],
    ids=["in order", "shuffled", "all equal", "three points"],
)
def test_t11_rank_n_contrast_has_the_checked_values(
    projections: torch.Tensor, labels: torch.Tensor, expected: float
) -> None:
    """The spec's values hold where float distances are compared as they are; exact ties give the literal formula."""
    assert float(rank_n_contrast(projections, labels, exact_ties=False)) == pytest.approx(expected, abs=5e-5)
    exact = float(rank_n_contrast(projections, labels))
    assert exact == pytest.approx(brute_force(projections, labels), abs=1e-9)


def test_t11_equal_embeddings_have_a_closed_form() -> None:
    """With all embeddings equal each term is the log of the number of regions at least as far away."""
    rank = np.arange(50)
    gap = np.abs(rank[:, None] - rank[None, :])
    far = (gap[:, None, :] >= gap[:, :, None]).sum(axis=2)  # j itself is among them, i is not as its gap is 0
    expected = np.log(far[gap > 0]).mean()
    assert float(rank_n_contrast(EQUAL.float(), LABELS.float())) == pytest.approx(expected, abs=1e-5)


def test_t11_ties_are_compared_exactly() -> None:
    """Ranks over N that floats cannot hold exactly still tie: single precision gives the literal formula too."""
    labels = torch.tensor([1, 2, 3.5, 3.5, 5, 6, 7], dtype=torch.float64) / 7
    projections = torch.nn.functional.normalize(torch.randn(7, 4, generator=torch.Generator().manual_seed(1)), dim=-1)
    expected = brute_force(projections.double(), labels)
    assert float(rank_n_contrast(projections, labels.float())) == pytest.approx(expected, abs=1e-5)
    assert float(rank_n_contrast(projections, labels.float(), exact_ties=False)) != pytest.approx(expected, abs=1e-3)


def neighbour_recall(labels_for_training: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of points whose nearest other embedding is one of the six nearest in true rank, after training freely."""
    torch.manual_seed(0)
    free = torch.randn(len(truth), 8, requires_grad=True)
    optimiser = torch.optim.Adam([free], lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        rank_n_contrast(torch.nn.functional.normalize(free, dim=-1), labels_for_training).backward()
        optimiser.step()
    points = torch.nn.functional.normalize(free.detach(), dim=-1)
    similarity = points @ points.T - 2 * torch.eye(len(truth))
    nearest = similarity.argmax(dim=1)
    return float(((truth - truth[nearest]).abs() <= 3 / len(truth) + 1e-6).float().mean())


def test_t11_embeddings_learn_the_labels_they_were_given_and_nothing_else() -> None:
    """Trained on true labels, rank neighbours are found; on shuffled ones, at chance (6 of 39)."""
    n = 40
    truth = torch.arange(1, n + 1) / n
    shuffled = truth[torch.randperm(n, generator=torch.Generator().manual_seed(3))]
    assert neighbour_recall(truth, truth) > 0.9
    assert neighbour_recall(shuffled, truth) < 0.4
    assert neighbour_recall(shuffled, shuffled) > 0.9  # it did learn; only not the truth


def test_ordering_loss_counts_only_clear_pairs() -> None:
    """Closed form for three regions: pairs whose labels differ by at most 0.05 do not count."""
    labels = torch.tensor([0.10, 0.12, 0.90])
    values = torch.tensor([1.0, 5.0, 2.0])
    expected = (np.log1p(np.exp(-1.0)) + np.log1p(np.exp(3.0))) / 2
    assert float(ordering_loss(values, labels)) == pytest.approx(expected, rel=1e-6)
    assert float(ordering_loss(values, torch.zeros(3))) == 0.0


@pytest.mark.parametrize("huber", [None, 0.1])
@pytest.mark.parametrize("cells", ["all", "off_diagonal"])
def test_losses_of_holders_add_up_to_the_pooled_loss(lab, cells: str, huber: float | None) -> None:
    """With the same margins: the sum over holders with the global count of cells, and the weighted mean without."""
    series = lab.as_series(lab.random_counts())
    data = lab.data.model_copy(update={"cells": cells})
    config = lab.small.model_copy(update={"huber": huber})
    margins = margins_of(series.counts.astype(float))
    pooled = lab.windows_of(series, config, data=data)
    model = lab.model_for(pooled, shake=0.1)
    origins = pooled.origins("train")[:5]
    batch = pooled.batch(origins)
    expected = example_losses(model(batch), batch, config)
    codes = series.regions.codes
    total, mean = torch.zeros(5), torch.zeros(5)
    for held in (codes[:3], codes[3:5], codes[5:]):
        own = lab.windows_of(series.held_by(held), config, data=data, margins=margins)
        part = own.batch(origins)
        forecast = model(part)
        total += example_losses(forecast, part, config, scored_cells=pooled.scored_cells)
        mean += example_losses(forecast, part, config) * own.scored_cells / pooled.scored_cells
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-6)


def test_only_the_chosen_variables_are_trained(lab) -> None:
    """`contrastive_variables` switches single variables off, and weight 0 all of them."""
    windows = lab.windows_of(lab.as_series(lab.random_counts()))
    model = lab.model_for(windows, shake=0.1)
    batch = windows.batch(windows.origins("train")[:2])
    forecast = model(batch)

    def loss(**changes: object) -> torch.Tensor:
        return example_losses(forecast, batch, lab.small.model_copy(update=changes))

    none = loss(contrastive_weight=0.0)
    parts = [loss(contrastive_variables=(name,)) - none for name in lab.small.contrastive_variables]
    assert all((part > 0).all() for part in parts)
    torch.testing.assert_close(none + sum(parts), loss(), rtol=1e-4, atol=1e-6)

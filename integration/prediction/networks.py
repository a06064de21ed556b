"""The two classifiers as torch modules, for training in rounds: a linear map, and a small perceptron."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from integration.prediction.logistic import Coefficients


class LinearScores(nn.Module):
    """Logistic regression: x → W x + b, all zero at first.

    Shapes: x (B, features) -> (B, scores); one score, the log odds, for two classes.
    """

    def __init__(self, features: int, scores: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, scores)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Scores of each row; there is nothing to drop."""
        return self.linear(x)


class Perceptron(nn.Module):
    """Layers of ReLU units, each but the last masked by the batch's own dropout masks.

    Shapes: x (B, features), dropout (B, sum of widths) -> (B, scores)
    """

    def __init__(self, features: int, widths: tuple[int, ...], scores: int) -> None:
        super().__init__()
        sizes = (features, *widths)
        self.widths = widths
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.last = nn.Linear(sizes[-1], scores)

    def forward(self, x: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Scores of each row."""
        masks = (None,) * len(self.widths) if dropout is None else dropout.split(self.widths, dim=1)
        for layer, mask in zip(self.hidden, masks, strict=True):
            x = functional.relu(layer(x))
            x = x if mask is None else x * mask
        return self.last(x)


def log_loss(scores: Tensor, y: Tensor) -> Tensor:
    """Minus the log of the probability of the class that is true. Shapes: (B, scores), (B,) int64 -> (B,)"""
    if scores.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(scores[:, 0], y.to(scores.dtype), reduction="none")
    return functional.cross_entropy(scores, y, reduction="none")


def squared_error(scores: Tensor, y: Tensor) -> Tensor:
    """Brier's score: squared distance of probabilities from what is true, halved. Shapes: as `log_loss`."""
    if scores.shape[1] == 1:
        return (torch.sigmoid(scores[:, 0]) - y.to(scores.dtype)).square()
    truth = functional.one_hot(y, scores.shape[1]).to(scores.dtype)
    return (torch.softmax(scores, dim=1) - truth).square().sum(dim=1) / 2


def coefficients_of(model: LinearScores) -> Coefficients:
    """The linear model's weights, for `integration.prediction.logistic`."""
    weight, bias = model.linear.weight.detach(), model.linear.bias.detach()
    return Coefficients(weight.double().numpy(), bias.double().numpy())


def set_coefficients(model: LinearScores, coefficients: Coefficients) -> None:
    """Give a linear model the weights that Newton steps found."""
    with torch.no_grad():
        model.linear.weight.copy_(torch.as_tensor(coefficients.weights))
        model.linear.bias.copy_(torch.as_tensor(coefficients.intercept))

"""The few modules that several methods share."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from rushes.similarity import fp32


class TokenWeights(nn.Module):
    """How much each token matters: softmax over the real tokens of a small head on un-normalised features.

        w_i = exp h(x_i) / sum_{j real} exp h(x_j)          Wang et al. 2022 (arXiv 2203.07111)

    hidden 0 is one linear layer, 1 puts a ReLU layer of the same width before it (the authors' second architecture).

    >>> import torch
    >>> head = TokenWeights(4)
    >>> weights = head(torch.zeros(1, 3, 4), torch.tensor([[True, True, False]]))
    >>> weights.tolist()
    [[0.5, 0.5, 0.0]]
    """

    def __init__(self, dim: int, hidden: int = 0):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(hidden):
            layers += [nn.Linear(dim, dim), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(dim, 1, bias=False))  # softmax forgets a bias

    def forward(
        self, features: Float[Tensor, "batch token dim"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token"]:
        logits = fp32(self.head(features)[..., 0]).masked_fill(~mask, -float("inf"))
        return logits.softmax(dim=1).masked_fill(~mask, 0)

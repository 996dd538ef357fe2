"""What a mixed batch is called: several labels per image, each with its weight.

One object serves every mixing method: a pair (λ, 1 − λ), two weights that need not sum to one
(SnapMix), several partners (Co-Mixup), or soft labels that were soft from the start. It renders as
a matrix and as a loss.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

CRITERIA = ("ce", "bce_softmax")
# one of these, or a function of (logits, target)
Criterion = str | Callable[[Tensor, "Target"], Tensor]


@dataclass(frozen=True)
class Target:
    """The labels of a batch of B images, as weighted parts.

    Args:
        labels: one tensor per part: (B,) int64 class numbers, or (B, N) floating class shares.
        weights: one weight per part: a number, or a (B,) floating tensor. They need not sum to one.
    """

    labels: tuple[Tensor, ...]
    weights: tuple[float | Tensor, ...]

    @classmethod
    def pair(
        cls,
        labels: Tensor,
        partner: Tensor,
        own_weight: float | Tensor,
        partner_weight: float | Tensor | None = None,
    ) -> "Target":
        """The image's own label by `own_weight`, its partner's by the rest (the paper's Eq. 3).

        Args:
            labels: (B,) int64 or (B, N) floating.
            partner: (B,) int64 on the labels' device, whom each image is mixed with.
            own_weight: in [0, 1], a number or (B,).
            partner_weight: likewise, where it is not 1 − own_weight (SnapMix).
        """
        rest = 1 - own_weight if partner_weight is None else partner_weight
        return cls((labels, labels[partner]), (own_weight, rest))

    @classmethod
    def several(cls, labels: Tensor, partners: Tensor, weights: Tensor) -> "Target":
        """Any number of partners per image (Co-Mixup).

        Args:
            labels: (B,) int64 or (B, N) floating.
            partners: (B, m) int64 on the labels' device, the images that went into each mixed one.
            weights: (B, m) floating, ≥ 0, their weights; 0 where an image has fewer than m.
        """
        return cls(tuple(labels[column] for column in partners.T), tuple(weights.T))

    def smooth(self, epsilon: float, num_classes: int) -> "Target":
        """Label smoothing: each part gives up `epsilon` of its weight to the uniform distribution
        over the classes.

        Source: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, section 7.

        Args:
            epsilon: in [0, 1]. num_classes: N.
        """
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon must lie in [0, 1], got {epsilon}")
        batch, device = len(self.labels[0]), self.labels[0].device
        uniform = torch.full((batch, num_classes), 1 / num_classes, device=device)
        return Target(
            (*self.labels, uniform),
            (*((1 - epsilon) * weight for weight in self.weights), epsilon * sum(self.weights)),
        )

    def soft(self, num_classes: int) -> Tensor:
        """The target as a matrix, (B, num_classes) float32; rows sum to the sum of the weights."""
        return _sum(
            _column(weight)
            * (labels if labels.is_floating_point() else F.one_hot(labels, num_classes)).float()
            for labels, weight in self._parts()
        )

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Weighted cross-entropy, mean over the batch, 0-dim, at least float32, of logits (B, N) of
        any dtype.
        """
        log_p = _at_least_float32(logits).log_softmax(dim=1)
        return _sum((weight * _nll(log_p, labels)).mean() for labels, weight in self._parts())

    def bce_softmax(self, logits: Tensor) -> Tensor:
        """Binary cross-entropy of softmax(logits), mean over batch and classes, 0-dim, at least
        float32.

        Manifold Mixup, PuzzleMix and Co-Mixup were trained with this loss, also in their baseline
        rows; its gradient is far smaller than cross-entropy's at the same learning rate, so it is
        another protocol. Taken from the logarithms, so that a label keeps its gradient however
        sure the model is of another one.

        Differs from the release: PyTorch's `BCELoss` on the softmax cuts logarithms at −100 and
        loses the gradient of a probability that rounds to 0 or 1.
        """
        log_p, soft = _at_least_float32(logits).log_softmax(dim=1), self.soft(logits.shape[1])
        log_q = _log_rest(log_p)
        return -(soft * log_p + (1 - soft) * log_q).mean()

    def loss(self, logits: Tensor, criterion: Criterion = "ce") -> Tensor:
        """The loss of `logits` (B, N): "ce", "bce_softmax", or your own function of (logits,
        target).
        """
        if callable(criterion):
            return criterion(logits, self)
        return self.cross_entropy(logits) if criterion == "ce" else self.bce_softmax(logits)

    def accuracy(self, logits: Tensor) -> Tensor:
        """Weighted accuracy in [0, 1], 0-dim float32: each part's label counts with its weight.

        Under mixing no prediction can earn more than the larger weight, so this is not comparable
        with an accuracy on clean images.
        """
        guess = logits.argmax(dim=1, keepdim=True)
        hits = (
            (
                labels.gather(1, guess)[:, 0]
                if labels.is_floating_point()
                else (labels == guess[:, 0]).float()
            )
            for labels, _ in self._parts()
        )
        return _sum((weight * hit).mean() for hit, weight in zip(hits, self.weights))

    def _parts(self) -> Iterator[tuple[Tensor, float | Tensor]]:
        return zip(self.labels, self.weights, strict=True)


def _sum(parts: Iterator[Tensor]) -> Tensor:
    return reduce(torch.add, parts)


def _column(weight: float | Tensor) -> float | Tensor:
    return weight[:, None] if isinstance(weight, Tensor) else weight


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _log_rest(log_p: Tensor) -> Tensor:
    """log(1 − p), (B, N), of log-probabilities (B, N), exact also where p is close to 1."""
    largest = log_p.argmax(dim=1, keepdim=True)
    # of the largest the sum of all the others; the others are at most 1/2, and the −1 is not read
    rest = log_p.scatter(1, largest, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.log1p(-log_p.scatter(1, largest, -1).exp()).scatter(1, largest, rest)


def _nll(log_p: Tensor, labels: Tensor) -> Tensor:
    """(B,) negative log-likelihood of hard (B,) or soft (B, N) labels."""
    if labels.is_floating_point():
        return -(labels.to(log_p.dtype) * log_p).sum(dim=1)
    return F.nll_loss(log_p, labels, reduction="none")

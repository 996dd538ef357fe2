"""Calibration: is a model right as often as its confidence says?

Source: Guo, Pleiss, Sun & Weinberger, ICML 2017, section 2: the confidence is the largest softmax
probability, the reliability diagram its bins of equal width, and the expected calibration error the
mean gap between confidence and accuracy, weighted by how many images a bin holds.

Where it misleads: over- and underconfidence cancel inside a bin; the number depends on the bins, so
it compares only at one `n_bins`; few images give an error that is too large (an empty truth would
not be 0); and a model that guesses the class frequencies is perfectly calibrated.
"""

import torch
from torch import Tensor

from ..utils.choices import check_whole
from ..utils.tensors import check_labels, form_of


def measure_calibration(logits: Tensor, labels: Tensor, n_bins: int = 15) -> dict:
    """Expected calibration error and the bins it is made of.

    Source: Guo et al., ICML 2017, Eq. 3 and the bins above Eq. 2: bin m holds confidences in
    ((m-1)/M, m/M], so one that lies on an edge belongs to the lower bin.

    Args:
        logits: (N, classes) floating and finite, N >= 1.
        labels: (N,) int64, the true classes, on the same device.
        n_bins: M, >= 1.
    Returns:
        {"ece": percent, "bins": [[lower edge, mean confidence, accuracy, share of the images], …]}:
        all n_bins of them, each value in [0, 1]; mean confidence and accuracy of an empty bin are
        None, its share 0.
    Raises:
        ValueError: if a shape, a dtype, a label or n_bins is not so.
    """
    check_logits(logits, labels)
    check_whole(n_bins=n_bins)
    confidence, guess = logits.double().softmax(dim=1).max(dim=1)
    # sums on a GPU have no fixed order
    confidence, right = confidence.cpu(), (guess == labels).double().cpu()
    edges = torch.arange(1, n_bins + 1, dtype=torch.float64) / n_bins  # the upper ones
    place = torch.searchsorted(edges, confidence).clamp(max=n_bins - 1)  # rounding may pass 1
    count, sure, correct = (
        torch.bincount(place, weights, minlength=n_bins).tolist()
        for weights in (None, confidence, right)
    )
    bins = []
    for number, held in enumerate(count):
        means = (sure[number] / held, correct[number] / held) if held else (None, None)
        bins.append([number / n_bins, *means, held / len(labels)])
    gaps = (share * abs(mean - accuracy) for _, mean, accuracy, share in bins if share)
    return {"ece": 100 * sum(gaps), "bins": bins}


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raises ValueError unless logits and labels belong together and are usable."""
    if logits.ndim != 2 or not logits.numel() or not logits.is_floating_point():
        raise ValueError(f"logits must be floating (N, classes), N >= 1, got {form_of(logits)}")
    if not logits.isfinite().all():
        raise ValueError("logits must be finite, got NaN or infinity")
    check_labels(labels, len(logits), logits.shape[1])

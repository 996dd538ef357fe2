"""Confidence beyond the calibration error: proper scores, one temperature, and what is gained by
answering less often.

Sources: Brier, Monthly Weather Review 1950 (the score); Gneiting & Raftery, JASA 2007 (why proper
scores); Nguyen & O'Connor, EMNLP 2015 (bins of equal size); Guo, Pleiss, Sun & Weinberger, ICML
2017, section 4.2 (temperature); Geifman, Uziel & El-Yaniv, ICLR 2019 (risk and coverage).

Where it misleads: mixed labels teach a network to be unsure, so that its calibration error before a
temperature was fitted says how it was trained as much as what it knows: the numbers after scaling
are the fairer ones, and the ranking of its answers, which no temperature changes, is in the risk at
a coverage. That risk falls with the error too: compare it beside the error of all images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..utils.choices import check_whole
from .calibration import check_logits, measure_calibration

COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BRACKET = (1e-3, 1e3)  # temperatures that are looked at


def brier_score(logits: Tensor, labels: Tensor) -> float:
    """The mean over the images of Σ_k (p_k − y_k)², y being 1 at the true class (Brier, 1950).

    Args:
        logits: (N, classes) floating and finite, N >= 1.
        labels: (N,) int64, the true classes, on the same device.
    Returns:
        In [0, 2], 0 for certain and right; (classes − 1) / classes for uniform guesses.
    Raises:
        ValueError: if a shape, a dtype or a label is not so.
    """
    check_logits(logits, labels)
    chances = logits.double().softmax(dim=1)
    truth = F.one_hot(labels, logits.shape[1])
    return (chances - truth).square().sum(dim=1).mean().item()


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """The mean of −log p of the true class, in nats, ≥ 0; computed in float64.

    Args and errors: as `brier_score`.
    """
    check_logits(logits, labels)
    return F.cross_entropy(logits.double(), labels).item()


def adaptive_calibration_error(logits: Tensor, labels: Tensor, n_bins: int = 15) -> float:
    """The calibration error over bins that hold equally many images, in percent (Nguyen & O'Connor,
    2015): the images in the order of their confidence are cut into n_bins runs whose sizes differ
    by one at most, the larger ones first; Σ |mean confidence − accuracy| · share.

    Images of one confidence keep their order and may fall into two bins.

    Args:
        logits, labels: as for `brier_score`.
        n_bins: >= 1; no more than there are images are used.
    Raises:
        ValueError: as `brier_score`, or for n_bins < 1.
    """
    check_logits(logits, labels)
    check_whole(n_bins=n_bins)
    confidence, right = _answers(logits, labels)
    order = confidence.argsort(stable=True)
    gaps = [
        (confidence[part].mean() - right[part].mean()).abs() * len(part)
        for part in order.tensor_split(min(n_bins, len(order)))
    ]
    return 100 * float(sum(gaps)) / len(order)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 at which logits / T have the least negative log likelihood (Guo et al., 2017).

    The likelihood is concave in 1/T, so that its slope has one zero, found by halving; in float64.
    T > 1 softens what was too sure.

    Args:
        logits, labels: as for `brier_score`; of images that are not evaluated with it.
    Returns:
        In [0.001, 1000]; an end of it where the likelihood still rises there, as it does at the
        lower end if every answer is right.
    Raises:
        ValueError: as `brier_score`.
    """
    check_logits(logits, labels)
    values = logits.double()
    own = values.gather(1, labels[:, None])[:, 0]
    low, high = (1 / bound for bound in reversed(BRACKET))  # of 1/T
    for _ in range(100):
        middle = (low * high) ** 0.5
        expected = ((values * middle).softmax(dim=1) * values).sum(dim=1)
        if (own - expected).mean() > 0:  # the likelihood rises with 1/T
            low = middle
        else:
            high = middle
    return 1 / (low * high) ** 0.5


def risk_coverage(logits: Tensor, labels: Tensor) -> dict:
    """How the error falls where a model answers only what it is surest of.

    Source: Geifman, Uziel & El-Yaniv, ICLR 2019: the risk at coverage c is the error among the
    share c of the images with the largest confidence; AURC is its mean over all coverages n/N.

    Args:
        logits, labels: as for `brier_score`.
    Returns:
        {"aurc": percent; "curve": [[coverage, error in percent], …] at the coverages 0.1 … 1, of
        round(c N) images, at least one}. Images of one confidence stand in their order.
    Raises:
        ValueError: as `brier_score`.
    """
    check_logits(logits, labels)
    confidence, right = _answers(logits, labels)
    wrong = 1 - right[confidence.argsort(descending=True, stable=True)]
    risks = 100 * wrong.cumsum(dim=0) / torch.arange(1, len(wrong) + 1)
    taken = [max(round(coverage * len(wrong)), 1) for coverage in COVERAGES]
    curve = [[coverage, risks[n - 1].item()] for coverage, n in zip(COVERAGES, taken)]
    return {"aurc": risks.mean().item(), "curve": curve}


def measure_confidence(logits: Tensor, labels: Tensor, n_bins: int = 15) -> dict:
    """All of them: as the model answers, and with a temperature fitted on the other half.

    Args:
        logits, labels, n_bins: as above; N >= 2.
    Returns:
        brier, nll, adaptive_ece, aurc and risk_coverage of all images; temperature, fitted on the
        images at even places; "scaled", ece, nll and brier of those at odd places with it, and
        "unscaled", of the same images without.
    Raises:
        ValueError: as above, or for a single image.
    """
    check_logits(logits, labels)
    if len(labels) < 2:
        raise ValueError("a temperature needs images to be fitted on and others; got 1 image")
    temperature = fit_temperature(logits[::2], labels[::2])
    curve = risk_coverage(logits, labels)
    rest, truth = logits[1::2].double(), labels[1::2]
    return {
        "brier": brier_score(logits, labels),
        "nll": negative_log_likelihood(logits, labels),
        "adaptive_ece": adaptive_calibration_error(logits, labels, n_bins),
        "aurc": curve["aurc"],
        "risk_coverage": curve["curve"],
        "temperature": temperature,
        "scaled": _scores(rest / temperature, truth, n_bins),
        "unscaled": _scores(rest, truth, n_bins),
    }


def _scores(logits: Tensor, labels: Tensor, n_bins: int) -> dict[str, float]:
    return {
        "ece": measure_calibration(logits, labels, n_bins)["ece"],
        "nll": negative_log_likelihood(logits, labels),
        "brier": brier_score(logits, labels),
    }


def _answers(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) float64 on the CPU: the confidence of each answer, and 1 where it is right."""
    confidence, guess = logits.double().softmax(dim=1).max(dim=1)
    return confidence.cpu(), (guess == labels).double().cpu()

"""The target object against PyTorch's own losses with soft labels."""

import pytest
import torch
import torch.nn.functional as F

from catchup import Target

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 1, 0])
OTHERS = torch.tensor([3, 3, 1, 0, 1, 2])


def one_hot(labels):
    return F.one_hot(labels, 4).float()


TARGETS = {
    "pair": (Target((LABELS, OTHERS), (0.3, 0.7)), 0.3 * one_hot(LABELS) + 0.7 * one_hot(OTHERS)),
    "a weight per image": (
        Target((LABELS, OTHERS), (torch.linspace(0, 1, 6), 1 - torch.linspace(0, 1, 6))),
        torch.linspace(0, 1, 6)[:, None] * one_hot(LABELS)
        + (1 - torch.linspace(0, 1, 6))[:, None] * one_hot(OTHERS),
    ),
    "weights that do not sum to one": (
        Target((LABELS, OTHERS), (0.9, 0.4)),
        0.9 * one_hot(LABELS) + 0.4 * one_hot(OTHERS),
    ),
    "three partners": (
        Target((LABELS, OTHERS, LABELS.flip(0)), (0.5, 0.3, 0.2)),
        0.5 * one_hot(LABELS) + 0.3 * one_hot(OTHERS) + 0.2 * one_hot(LABELS.flip(0)),
    ),
    "soft labels": (
        Target((LOGITS.softmax(1), one_hot(OTHERS)), (0.6, 0.4)),
        0.6 * LOGITS.softmax(1) + 0.4 * one_hot(OTHERS),
    ),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_renders_as_a_matrix_and_as_the_same_loss(kind):
    target, soft = TARGETS[kind]
    torch.testing.assert_close(target.soft(4), soft)
    torch.testing.assert_close(target.cross_entropy(LOGITS), F.cross_entropy(LOGITS, soft))
    if soft.max() <= 1:
        torch.testing.assert_close(
            target.bce_softmax(LOGITS), F.binary_cross_entropy(LOGITS.softmax(1), soft)
        )


def test_pair_weights_own_and_partners_label():
    partner = torch.tensor([1, 2, 3, 4, 5, 0])
    expected = 0.25 * one_hot(LABELS) + 0.75 * one_hot(LABELS[partner])
    torch.testing.assert_close(Target.pair(LABELS, partner, 0.25).soft(4), expected)


def test_weighted_accuracy_by_hand():
    """Predictions 0, 1: the first is right with weight .3, the second with both weights."""
    logits = torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 0]])
    target = Target((torch.tensor([0, 1]), torch.tensor([2, 1])), (0.3, 0.7))
    assert target.accuracy(logits).item() == pytest.approx((0.3 + 1.0) / 2)
    soft = Target((target.soft(4),), (1.0,))
    assert soft.accuracy(logits).item() == pytest.approx((0.3 + 1.0) / 2)


def test_half_precision_logits_are_judged_in_float32():
    big = torch.tensor([[60000.0, -60000.0, 0, 0]], dtype=torch.float16)
    loss = Target((torch.tensor([1]),), (1.0,)).cross_entropy(big)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(120000, rel=1e-3)
    assert Target((torch.tensor([1]),), (1.0,)).bce_softmax(big).isfinite()


@pytest.mark.parametrize("gap", [0.0, 5.0, 28.0, 50.0, 100.0])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_binary_cross_entropy_keeps_its_gradient_however_sure_the_model_is(gap, classes):
    """Against the derivative written out, in double precision: the true class lies `gap` behind."""
    logits = torch.zeros(1, classes).index_fill_(1, torch.tensor([0]), gap).requires_grad_()
    Target((torch.tensor([1]),), (1.0,)).bce_softmax(logits).backward()
    z = logits.detach().double()[0]
    p = (z - z.logsumexp(0)).exp()
    # 1 − p_j over the others' exponentials, so that nothing cancels
    rest = torch.stack([torch.cat([z[:j], z[j + 1 :]]).logsumexp(0) for j in range(classes)])
    q, label = (rest - z.logsumexp(0)).exp(), torch.eye(classes, dtype=torch.float64)[1]
    # ∂ loss / ∂ p_j · p_j, and through the softmax: ∂p_j / ∂z_k = p_j (δ_jk − p_k)
    by_p = torch.where(label > 0, -label, p / q) / classes
    expected = torch.stack(
        [sum(by_p[j] * (q[k] if j == k else -p[k]) for j in range(classes)) for k in range(classes)]
    )
    torch.testing.assert_close(logits.grad[0].double(), expected, rtol=2e-5, atol=1e-7)
    if gap >= 28:  # the label that lies behind is still pulled up
        assert logits.grad[0, 1] < -0.9 / classes


def test_double_precision_is_kept():
    assert Target((LABELS,), (1.0,)).cross_entropy(LOGITS.double()).dtype == torch.float64


def test_gradients_flow_to_the_logits_only_through_the_weights():
    logits = LOGITS.clone().requires_grad_()
    target, soft = TARGETS["weights that do not sum to one"]
    target.cross_entropy(logits).backward()
    expected = (LOGITS.softmax(1) * soft.sum(1, keepdim=True) - soft) / 6
    torch.testing.assert_close(logits.grad, expected)


def test_several_partners_weigh_as_they_are_written():
    labels = torch.tensor([0, 2, 1])
    partners, weights = (
        torch.tensor([[0, 1, 2], [1, 0, 0], [2, 1, 0]]),
        torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.25, 0.25, 0.5]]),
    )
    by_hand = torch.zeros(3, 4)
    for image in range(3):
        for place in range(3):
            by_hand[image, labels[partners[image, place]]] += weights[image, place]
    target = Target.several(labels, partners, weights)
    torch.testing.assert_close(target.soft(4), by_hand)
    soft = Target.several(F.one_hot(labels, 4).float(), partners, weights)
    logits = torch.randn(3, 4)
    torch.testing.assert_close(soft.cross_entropy(logits), target.cross_entropy(logits))


def test_two_weights_need_not_sum_to_one():
    labels, partner = torch.tensor([0, 1]), torch.tensor([1, 0])
    target = Target.pair(labels, partner, torch.tensor([0.7, 0.2]), torch.tensor([0.1, 0.9]))
    torch.testing.assert_close(target.soft(2), torch.tensor([[0.7, 0.1], [0.9, 0.2]]))


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_smoothing_equals_pytorchs(epsilon):
    logits, labels, partner = (
        torch.randn(4, 6),
        torch.tensor([0, 5, 2, 2]),
        torch.tensor([1, 2, 3, 0]),
    )
    alone = Target((labels,), (1.0,)).smooth(epsilon, 6).cross_entropy(logits)
    torch.testing.assert_close(alone, F.cross_entropy(logits, labels, label_smoothing=epsilon))
    both = Target.pair(labels, partner, 0.3).smooth(epsilon, 6)
    expected = 0.3 * F.cross_entropy(
        logits, labels, label_smoothing=epsilon
    ) + 0.7 * F.cross_entropy(logits, labels[partner], label_smoothing=epsilon)
    torch.testing.assert_close(both.cross_entropy(logits), expected)


def test_smoothing_by_more_than_everything_is_refused():
    with pytest.raises(ValueError, match="epsilon must lie in .0, 1., got 1.5"):
        Target((torch.tensor([0]),), (1.0,)).smooth(1.5, 3)

"""Auto-PGD, Square and what is left after both: naive loops, linear models whose worst image is
known, and the properties of an attack.
"""

import math

import pytest
import torch
from torch import nn

from catchup.data import load
from catchup.measures import (
    apgd,
    attack_error,
    dlr_loss,
    measure_attacks,
    pgd,
    square,
    targeted_dlr_loss,
)
from catchup.measures.attacks.apgd import _checkpoints
from catchup.measures.attacks.square import _side
from catchup.models import trained
from catchup.models.inference import PixelModel

RNG = torch.Generator().manual_seed(0)


def linear(classes=5, shape=(3, 6, 6)):
    """A linear network, and images it is asked about, well inside [0, 1]."""
    head = nn.Linear(math.prod(shape), classes)
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=RNG))
    model = PixelModel(nn.Sequential(nn.Flatten(), head), (0.5,) * 3, (1.0,) * 3)
    images = 0.3 + 0.4 * torch.rand(8, *shape, generator=RNG)
    return model, images, model(images).argmax(dim=1)


def test_the_ratio_is_that_of_the_naive_loop_and_knows_no_scale():
    logits = torch.randn(20, 6, generator=RNG, dtype=torch.float64)
    labels, target = torch.arange(20) % 6, (torch.arange(20) + 2) % 6
    for row, y, t, ours, aimed in zip(
        logits.tolist(),
        labels.tolist(),
        target.tolist(),
        dlr_loss(logits, labels).tolist(),
        targeted_dlr_loss(logits, labels, target).tolist(),
    ):
        first, _, third, fourth, *_ = sorted(row, reverse=True)
        rival = max(z for i, z in enumerate(row) if i != y)
        assert ours == pytest.approx(-(row[y] - rival) / (first - third))
        assert aimed == pytest.approx(-(row[y] - row[t]) / (first - (third + fourth) / 2))
    assert torch.allclose(dlr_loss(7 * logits + 3, labels), dlr_loss(logits, labels))
    wrong = logits.argmax(1) != labels
    assert ((dlr_loss(logits, labels) > 0) == wrong).all()


def test_checkpoints_are_the_papers():
    """p: 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 (section 3)."""
    places = [place for place, _ in _checkpoints(100)]
    assert places == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sum(length for _, length in _checkpoints(100)) == 99


def test_a_linear_network_is_attacked_to_the_corner_where_its_loss_is_largest():
    """Two classes: the worst image of the ball is x − ε sign(w_y − w_other), in one step."""
    model, images, _ = linear(classes=2)
    labels = model(images).argmax(dim=1)
    weight = model.model[1].weight.detach()
    away = torch.stack([weight[1 - y] - weight[y] for y in labels]).view_as(images)
    for eps in (0.1, 30.0):
        corner = images + eps / 255 * away.sign()
        for generator in (None, torch.Generator().manual_seed(1)):
            found = apgd(model, images, labels, eps, 20, generator=generator)
            fooled = model(found).argmax(1) != labels
            assert ((model(corner).argmax(1) != labels) == fooled).all()
            assert torch.allclose(found[~fooled], corner[~fooled], atol=1e-6)


def naive_apgd(loss, x0, eps, steps):
    """Algorithm 1 for one image, line by line; (image, loss) of the largest loss."""

    def at(x):
        leaf = x.clone().requires_grad_()
        value = loss(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.item(), gradient

    def project(x):
        return torch.minimum(torch.maximum(x, (x0 - eps).clamp(min=0)), (x0 + eps).clamp(max=1))

    checks, p = [0], [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    checks += [math.ceil(share * steps - 1e-9) for share in p[1:]]
    eta, eta_at, f_at = 2 * eps, 2 * eps, None
    x, (f, gradient) = x0, at(x0)
    best, f_max = (x0, f)
    f_at, before, raised, halvings = f_max, x0, 0, 0
    for k in range(1, steps + 1):
        z = project(x + eta * gradient.sign())
        new = z if k == 1 else project(x + 0.75 * (z - x) + 0.25 * (x - before))
        before, x = x, new
        f_new, gradient = at(x)
        raised += f_new > f
        f = f_new
        if f > f_max:
            best, f_max = x, f
        if k in checks:
            length = k - checks[checks.index(k) - 1]
            first = raised < 0.75 * length
            second = eta == eta_at and f_max == f_at
            eta_at, f_at, raised = eta, f_max, 0
            if first or second:
                eta, x, halvings = eta / 2, best, halvings + 1
                f, gradient = at(x)
    return best, f_max, halvings


def test_images_that_withstand_are_those_of_the_algorithm_line_by_line():
    """A network with many corners, double precision, a loss that never says "misclassified"."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 4)).double()
    for layer in (net[1], net[3]):
        layer.weight.data.mul_(4)
    model = PixelModel(net, (0.5,) * 3, (1.0,) * 3).double()
    images = 0.3 + 0.4 * torch.rand(12, 3, 2, 2, dtype=torch.float64)
    labels, halved = model(images).argmax(dim=1), 0
    for steps in (25, 60, 200):
        found = apgd(model, images, labels, 6.0, steps, dlr_loss)
        for place in range(12):
            y = labels[place : place + 1]
            best, value, halvings = naive_apgd(
                lambda x, y=y: dlr_loss(model(x[None]), y)[0], images[place], 6 / 255, steps
            )
            halved += halvings
            if value <= 0:  # not misclassified: what comes back is the largest loss
                assert torch.allclose(found[place], best, atol=1e-9)
            else:
                assert model(found[place : place + 1]).argmax() != y
    assert halved > 12


@pytest.mark.parametrize("attack", [apgd, square])
def test_attacks_stay_in_the_ball_and_repeat(attack):
    model, images, labels = linear()
    told = {"steps": 10} if attack is apgd else {"queries": 40}
    images[0], images[1] = 0.0, 1.0  # at the edge of what a pixel can be
    for eps in (0.0, 8.0):
        found = attack(model, images, labels, eps, **told)
        assert torch.equal(found, attack(model, images, labels, eps, **told))
        assert (found - images).abs().max() <= eps / 255 + 1e-6
        assert 0 <= found.min() and found.max() <= 1
        assert all(p.grad is None for p in model.parameters())


def test_a_square_is_kept_only_where_it_brings_the_answer_nearer():
    model, images, labels = linear()

    def margins(queries):
        logits = model(square(model, images, labels, 2.0, queries)).detach()
        own = logits.gather(1, labels[:, None])
        return own[:, 0] - logits.scatter(1, labels[:, None], -torch.inf).amax(1)

    # the schedule depends on the queries, so only the first squares are those of a longer search
    begin = margins(1)
    changed = square(model, images, labels, 2.0, 1) - images
    assert torch.allclose(changed.abs(), torch.full_like(changed, 2 / 255), atol=1e-6)
    assert torch.allclose(changed, changed[:, :, :1].expand_as(changed), atol=1e-6)  # stripes
    end = margins(300)
    assert (end <= begin).all() and (end < begin - 1e-3).any()


def test_squares_shrink_as_the_papers_schedule_says():
    share = {10: 1, 11: 2, 50: 2, 51: 4, 201: 8, 501: 16, 1001: 32, 2001: 64, 4001: 128, 6001: 256}
    for query, divisor in share.items():
        expected = max(round((0.8 / divisor * 32 * 32) ** 0.5), 1)
        assert _side(query, 10_000, (32, 32)) == expected
        assert _side(query, 10_000, (3, 3)) <= 3
    assert _side(4000, 5000, (32, 32)) == _side(8000, 10_000, (32, 32))


@pytest.fixture(scope="module")
def digits():
    data = load("digits")
    model = PixelModel.of(trained("digits-baseline"), data)
    return model, data.test.take(range(60))


@pytest.mark.slow
def test_it_breaks_what_pgd_breaks_and_every_attack_adds_to_the_one_before(digits):
    model, images = digits
    found = measure_attacks(model, images, eps_255=16.0, steps=30, queries=200)
    errors = [found[name] for name in ("clean", "apgd_ce", "apgd_t", "square")]
    assert errors == sorted(errors) and found["union"] == errors[-1]
    fifty = attack_error(
        model, images, lambda *given: pgd(*given, eps_255=16.0, steps=30, step_255=2.0)
    )
    assert found["apgd_t"] >= fifty - 2 and errors[1] > errors[0]
    assert found == measure_attacks(model, images, eps_255=16.0, steps=30, queries=200)


@pytest.mark.slow
def test_square_breaks_a_network_that_hides_its_gradient(digits):
    """Logits that stand in steps have no gradient: Auto-PGD does not move, the search does."""

    class Stepped(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            logits = self.model(images)
            return logits.detach().mul(4).round() / 4 + 0 * logits

    model, images = digits
    hidden = PixelModel(Stepped(model.model), model.mean, model.std)
    found = measure_attacks(hidden, images, eps_255=40.0, steps=5, queries=300)
    started = found["apgd_t"]
    assert found["square"] >= started + 20


def test_too_few_classes_and_bad_numbers_are_refused(digits):
    model, images, labels = linear(classes=3)
    with pytest.raises(ValueError, match="at least 4 classes, got 3"):
        targeted_dlr_loss(torch.zeros(2, 3), labels[:2], labels[:2])
    with pytest.raises(ValueError, match="at least 3 classes, got 2"):
        dlr_loss(torch.zeros(2, 2), labels[:2])
    few = type(digits[1])(digits[1].pixels, digits[1].labels.clamp(max=2), ("a", "b", "c"))
    with pytest.raises(ValueError, match="'attacks' needs at least 4 classes, got 3"):
        measure_attacks(model, few)
    with pytest.raises(ValueError, match="steps.*0"):
        apgd(model, images, labels, steps=0)
    with pytest.raises(ValueError, match="queries.*0"):
        square(model, images, labels, queries=0)
    with pytest.raises(ValueError, match="eps_255.*-1"):
        apgd(model, images, labels, -1.0)

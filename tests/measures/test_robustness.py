"""FGSM and PGD: the closed form on a linear model, captum as oracle, the ball, and what an attack
must leave alone.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup.data import Images
from catchup.hooks.layers import count_hooks
from catchup.measures.robustness import attack_error, fgsm, loss_gradient, pgd
from catchup.models.inference import PixelModel, predict, top_k_error

EPS = 4 / 255


def identity_pixels(model):
    return PixelModel(model, (0.0,) * 3, (1.0,) * 3)


def small_net(seed=0, scale=1.0):
    """A convolutional net with batch norm and dropout; `scale` multiplies its logits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(8 * 36, 4),
        )
    with torch.no_grad():
        net[-1].weight *= scale
        net[-1].bias *= scale
    return PixelModel(net, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def some_images(n=12, seed=1, low=0.0, high=1.0):
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, 6, 6, generator=rng) * (high - low) + low
    return images, torch.randint(0, 4, (n,), generator=rng)


def resident(n=40, seed=2):
    rng = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 3, 6, 6), dtype=torch.uint8, generator=rng)
    return Images(pixels, torch.randint(0, 4, (n,), generator=rng), tuple("abcd"))


@pytest.fixture(scope="module")
def trained():
    """A net that has nearly learnt 100 noise images by heart, so that an attack has something to
    take away.
    """
    model, images = small_net(), resident(100)
    pixels, optimizer = images.pixels / 255, torch.optim.Adam(model.parameters(), lr=0.01)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(8):
            optimizer.zero_grad()
            F.cross_entropy(model(pixels), images.labels).backward()
            optimizer.step()
    model.zero_grad()
    assert top_k_error(predict(model, images), images.labels) < 20
    return model, images


def test_fgsm_on_a_linear_model_is_the_closed_form():
    """Logits 0 and w·x: the loss of class 0 grows along sign(w), that of class 1 against it."""
    linear = nn.Linear(3 * 6 * 6, 2)
    w = torch.randn(3 * 6 * 6, generator=torch.Generator().manual_seed(3))
    w[:5] = 0.0  # no influence: these pixels stay
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.zeros_like(w), w]))
        linear.bias.zero_()
    images, _ = some_images(low=0.1, high=0.9)
    labels = torch.arange(12) % 2
    expected = images + EPS * torch.where(labels == 0, 1.0, -1.0)[
        :, None, None, None
    ] * w.sign().reshape(3, 6, 6)
    got = fgsm(identity_pixels(nn.Sequential(nn.Flatten(), linear)), images, labels, eps_255=4)
    assert torch.equal(got, expected)
    assert torch.equal(got.flatten(1)[:, :5], images.flatten(1)[:, :5])


def test_pgd_on_a_linear_model_reaches_the_corner_of_the_ball_and_stops_there():
    linear = nn.Linear(3 * 6 * 6, 2)
    images, labels = some_images(low=0.1, high=0.9)
    model = identity_pixels(nn.Sequential(nn.Flatten(), linear))
    for steps, reach in [(1, 1), (3, 3), (4, 4), (10, 4)]:
        got = pgd(model, images, labels % 2, eps_255=4, steps=steps, step_255=1)
        torch.testing.assert_close(
            (got - images).abs(), torch.full_like(images, reach / 255), atol=1e-6, rtol=0
        )


def test_fgsm_equals_captum_where_every_gradient_is_above_its_threshold():
    from captum.robust import FGSM

    model, (images, labels) = small_net().eval(), some_images()
    loss = lambda logits, labels: 1e3 * F.cross_entropy(logits, labels, reduction="none")  # noqa: E731
    assert (1e3 * loss_gradient(model, images, labels)).abs().min() > 1e-6
    captums = FGSM(model, loss_func=loss, lower_bound=0, upper_bound=1)
    oracle = captums.perturb(images.clone().requires_grad_(), EPS, labels)
    assert torch.equal(fgsm(model, images, labels), oracle.detach())


def test_fgsm_moves_the_pixels_that_captum_leaves_on_a_confident_model():
    from captum.robust import FGSM

    model, (images, _) = small_net(scale=200).eval(), some_images(40, low=0.1, high=0.9)
    labels = model(images).argmax(dim=1)  # right, and sure of it
    gradient = loss_gradient(model, images, labels)
    captums = FGSM(
        model, loss_func=nn.CrossEntropyLoss(reduction="none"), lower_bound=0, upper_bound=1
    )
    left = (captums.perturb(images.clone().requires_grad_(), EPS, labels) == images) & (
        gradient != 0
    )
    assert left.float().mean() > 0.2
    assert ((fgsm(model, images, labels) != images) == (gradient != 0)).all()


@pytest.mark.parametrize("eps_255", [0, 1, 4, 16])
@pytest.mark.parametrize("start", [None, 7])
def test_every_adversarial_pixel_lies_in_the_ball_and_in_the_pixel_range(eps_255, start):
    model, (images, labels) = small_net(), some_images()
    images[0], images[1] = 0.0, 1.0
    generator = None if start is None else torch.Generator().manual_seed(start)
    for got in (
        fgsm(model, images, labels, eps_255),
        pgd(model, images, labels, eps_255, generator=generator),
    ):
        assert (got - images).abs().max() <= eps_255 / 255 + 1e-6
        assert got.min() >= 0 and got.max() <= 1
        assert got.shape == images.shape and got.dtype == images.dtype
        if eps_255 == 0:
            assert torch.equal(got, images)


def test_an_image_has_the_same_gradient_in_every_batch():
    model, (images, labels) = small_net(), some_images()
    together = loss_gradient(model, images, labels)
    for one in range(len(images)):
        alone = loss_gradient(model, images[one : one + 1], labels[one : one + 1])
        torch.testing.assert_close(together[one : one + 1], alone)


def test_pgd_with_one_whole_step_is_fgsm():
    model, (images, labels) = small_net(), some_images()
    assert torch.equal(
        pgd(model, images, labels, eps_255=4, steps=1, step_255=4), fgsm(model, images, labels)
    )


def test_pgd_starts_at_random_from_the_generator_alone():
    model, (images, labels) = small_net(), some_images(low=0.1, high=0.9)

    def attack(seed):
        return pgd(
            model,
            images,
            labels,
            steps=1,
            step_255=1e-3,
            generator=torch.Generator().manual_seed(seed),
        )

    state = torch.get_rng_state()
    assert torch.equal(attack(1), attack(1)) and not torch.equal(attack(1), attack(2))
    assert torch.equal(torch.get_rng_state(), state)
    moved = (attack(1) - images) / EPS  # uniform in the ball: mean 0, variance 1/3, out to the edge
    assert abs(moved.mean()) < 0.05 and abs(moved.var() - 1 / 3) < 0.03 and moved.abs().max() > 0.98


def test_attacks_raise_the_error_and_pgd_at_least_as_far_as_fgsm(trained):
    model, images = trained
    clean = top_k_error(predict(model, images), images.labels)
    single, several = attack_error(model, images, fgsm), attack_error(model, images, pgd)
    assert clean < single <= several < 100
    assert attack_error(model, images, lambda _model, pixels, _labels: pixels) == clean
    batch = images.pixels / 255, images.labels
    losses = [
        F.cross_entropy(model.eval()(attack(model, *batch)), batch[1]).item()
        for attack in (fgsm, pgd)
    ]
    assert losses[1] > losses[0], "ten steps climb higher than one"


def test_the_error_under_attack_does_not_depend_on_the_batch_size(trained):
    model, images = trained

    def error(batch_size, seen):
        generator = torch.Generator().manual_seed(5)

        def attack(*batch):
            seen.append(pgd(*batch, eps_255=2, generator=generator))
            return seen[-1]

        return attack_error(model, images, attack, batch_size=batch_size)

    whole, parts = [], []
    assert error(100, whole) == error(33, parts)
    assert [len(part) for part in parts] == [33, 33, 33, 1]
    # a sign may turn where the gradient is rounding noise
    different = (torch.cat(parts) - whole[0]).abs() > 1e-6
    assert different.float().mean() < 0.001


def test_an_attack_leaves_modes_gradients_statistics_hooks_and_input_alone():
    model, (images, labels) = small_net().train(), some_images()
    model.model[1].eval()
    model(images).sum().backward()
    touched = []
    for parameter in model.parameters():
        parameter.register_hook(touched.append)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    modes, kept = [part.training for part in model.modules()], images.clone()
    with torch.no_grad():  # the caller's setting must not matter
        for attack in (fgsm, pgd):
            got = attack(model, images, labels)
            assert not got.requires_grad
    assert [part.training for part in model.modules()] == modes
    assert not touched and all(
        map(torch.equal, grads, [parameter.grad for parameter in model.parameters()])
    )
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert count_hooks(model) == 0 and torch.equal(images, kept) and not images.requires_grad
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_attacked_model_is_the_one_of_evaluation():
    """Dropout and batch statistics stay out of the gradient, whatever mode the caller left the
    model in.
    """
    model, (images, labels) = small_net(), some_images()
    expected = fgsm(model.eval(), images, labels)
    assert torch.equal(fgsm(model.train(), images, labels), expected)


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("eps_255", [-1, -1e-9, math.nan, math.inf])
def test_a_bad_radius_is_refused(attack, eps_255):
    with pytest.raises(ValueError, match="eps_255.*at least 0.*got"):
        attack(small_net(), *some_images(), eps_255=eps_255)


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda images: images * 255, r"must lie in \[0, 1\]"),
        (lambda images: images - 0.1, r"must lie in \[0, 1\]"),
        (lambda images: images * math.nan, r"must lie in \[0, 1\]"),
        (lambda images: (images * 255).to(torch.uint8), "got torch.uint8"),
        (lambda images: images.half(), "got torch.float16"),
        (lambda images: images[0], r"\(3, 6, 6\)"),
    ],
)
def test_bad_images_are_refused(attack, spoil, sentence):
    images, labels = some_images()
    with pytest.raises(ValueError, match=sentence):
        attack(small_net(), spoil(images), labels)


def test_bad_steps_and_a_model_without_gradient_are_refused():
    model, (images, labels) = small_net(), some_images()
    for settings in ({"steps": 0}, {"step_255": 0.0}, {"step_255": -1.0}, {"step_255": math.nan}):
        with pytest.raises(ValueError, match="step"):
            pgd(model, images, labels, **settings)
    with torch.no_grad():
        model.model[-1].weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        fgsm(model, images, labels)

"""Curvature against exact Hessians: finite differences, closed forms, SciPy; the model is left as
it was.
"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from catchup.data import Images
from catchup.hooks.layers import count_hooks
from catchup.measures.hessian import (
    flatten,
    hessian_trace,
    hessian_vector_product,
    hutchinson,
    lanczos,
    split_vector,
    top_eigenpairs,
    weight_gradient,
)
from catchup.models.inference import PixelModel


def close(found, expected, rtol=1e-9, atol=1e-9):
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=rtol, atol=atol)


def pixel_model(net):
    return PixelModel(net, (0.5, 0.4), (0.2, 0.3))


@pytest.fixture(scope="module")
def images():
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (11, 2, 4, 4), dtype=torch.uint8, generator=rng)
    return Images(pixels, torch.randint(0, 3, (11,), generator=rng), tuple("abc"))


@pytest.fixture
def model():
    """42 parameters in double precision; the statistics of its BatchNorm are not those of any
    batch.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 3, 2, bias=False),
            nn.BatchNorm2d(3),
            nn.Softplus(),
            nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(3, 3),
        )
    net[1].running_mean += torch.tensor([0.3, -0.2, 0.1])
    net[1].running_var *= torch.tensor([0.5, 2.0, 1.5])
    return pixel_model(net).double()


def exact(model, images, step=1e-5):
    """The Hessian, column by column: central differences of the ordinary gradient, in double
    precision.
    """
    frozen = copy.deepcopy(model).eval()
    inputs, here = (
        (images.pixels.float() / 255).double(),
        parameters_to_vector(frozen.parameters()).detach(),
    )

    def slope(weights):
        vector_to_parameters(weights, frozen.parameters())
        frozen.zero_grad()
        F.cross_entropy(frozen(inputs), images.labels).backward()
        return torch.cat([parameter.grad.flatten() for parameter in frozen.parameters()])

    columns = [
        (slope(here + step * axis) - slope(here - step * axis)) / (2 * step)
        for axis in torch.eye(len(here), dtype=torch.float64)
    ]
    return torch.stack(columns, dim=1)


def vectors(model, count, seed=1):
    size = sum(parameter.numel() for parameter in model.parameters())
    dtype = next(model.parameters()).dtype
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_product_is_that_with_the_whole_hessian_whatever_the_batches(model, images):
    matrix = exact(model, images)
    for vector in vectors(model, 3):
        # 4 leaves a smaller last batch, which must not weigh more
        for batch_size in (1, 4, 11, 100):
            product = hessian_vector_product(model, images, vector, batch_size)
            close(product, matrix @ vector, rtol=1e-6, atol=1e-8)


def test_the_product_is_symmetric_and_linear(model, images):
    a, b = vectors(model, 2)
    first, second = (hessian_vector_product(model, images, vector) for vector in (a, b))
    close(a @ second, b @ first)
    close(hessian_vector_product(model, images, 2 * a - 3 * b), 2 * first - 3 * second)


def test_a_linear_softmax_model_has_the_closed_form_of_the_textbook(images):
    net = pixel_model(nn.Sequential(nn.Flatten(), nn.Linear(32, 3, bias=False))).double()
    with torch.no_grad():
        inputs = net.model[0](
            (images.pixels.double() / 255 - torch.tensor([0.5, 0.4]).view(2, 1, 1))
            / torch.tensor([0.2, 0.3]).view(2, 1, 1)
        )
        share = net.model[1](inputs).softmax(dim=1)
    matrix = sum(
        torch.kron(torch.diag(p) - torch.outer(p, p), torch.outer(x, x))
        for p, x in zip(share, inputs)
    )
    vector = vectors(net, 1)[0]
    close(hessian_vector_product(net, images, vector), matrix @ vector / 11, rtol=1e-4, atol=1e-5)


def test_float32_agrees_with_float64(model, images):
    vector = vectors(model, 1)[0]
    double = hessian_vector_product(model, images, vector)
    single = hessian_vector_product(copy.deepcopy(model).float(), images, vector.float())
    assert single.dtype == torch.float32
    close(single.double(), double, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_that_of_backward(model, images):
    frozen = copy.deepcopy(model).eval()
    F.cross_entropy(frozen(images.pixels.double() / 255), images.labels).backward()
    expected = torch.cat([parameter.grad.flatten() for parameter in frozen.parameters()])
    close(weight_gradient(model, images, 4), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "measure",
    [
        lambda model, images: hessian_vector_product(model, images, vectors(model, 1)[0]),
        lambda model, images: top_eigenpairs(model, images, 2, max_iter=5),
        lambda model, images: hessian_trace(model, images, 2),
    ],
)
@pytest.mark.parametrize("grad", [True, False])
def test_a_model_is_left_as_it_was(model, images, measure, grad):
    model.train()
    model.model[1].eval()
    next(model.parameters()).requires_grad_(False)  # frozen in training: still part of the Hessian
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0) if parameter.requires_grad else None
    before, kept = copy.deepcopy(model.state_dict()), dict(model.named_parameters())
    modes = [module.training for module in model.modules()]
    with torch.set_grad_enabled(grad):
        measure(model, images)
        assert torch.is_grad_enabled() == grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter is kept[name] for name, parameter in model.named_parameters())
    assert all(
        (parameter.grad == 7).all() for parameter in model.parameters() if parameter.requires_grad
    )
    assert [module.training for module in model.modules()] == modes and count_hooks(model) == 0
    assert not next(model.parameters()).requires_grad


def test_modes_come_back_after_an_error_too(model, images, monkeypatch):
    model.train()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            torch.autograd, "grad", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        hessian_vector_product(model, images, vectors(model, 1)[0])
    assert all(module.training for module in model.modules())


def test_parameters_that_the_output_does_not_need_have_no_curvature(images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(32, 3))
    net.unused = nn.Parameter(torch.ones(5))  # Sequential does not run it
    model = pixel_model(net).double()
    product = split_vector(model, hessian_vector_product(model, images, vectors(model, 1)[0]))
    assert not product["model.unused"].any() and product["model.1.weight"].any()


def known(values, seed=0):
    """A symmetric matrix of these eigenvalues in random directions: the Hessian of a quadratic."""
    size = len(values)
    basis, _ = torch.linalg.qr(
        torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double()
    )
    return basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T, basis


def start(size, seed=3):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("which", "top"), [("algebraic", [5.0, 3.0, 1.0]), ("magnitude", [-9.0, 5.0, 3.0])]
)
def test_lanczos_finds_known_eigenvalues_at_either_end(which, top):
    matrix, basis = known([5, 3, -9, 1, *np.linspace(-0.5, 0.5, 46)])
    pairs = lanczos(lambda v: matrix @ v, start(50), 3, which=which, tol=1e-8, max_iter=50)
    assert pairs.converged and pairs.values == pytest.approx(top, abs=1e-6)
    assert abs(pairs.vectors[0] @ basis[:, 0 if which == "algebraic" else 2]) == pytest.approx(
        1, abs=1e-8
    )
    close(pairs.vectors @ pairs.vectors.T, torch.eye(3, dtype=torch.float64))
    assert pairs.products < 50


@pytest.mark.parametrize("max_iter", [3, 5, 8])
def test_residuals_are_what_they_say_and_bound_the_error_also_before_convergence(max_iter):
    values = list(np.linspace(1, 2, 60))
    matrix, _ = known(values)
    pairs = lanczos(lambda v: matrix @ v, start(60), 2, tol=1e-9, max_iter=max_iter)
    assert not pairs.converged and pairs.products == max_iter + 2
    for value, vector, residual in zip(pairs.values, pairs.vectors, pairs.residuals):
        assert residual == pytest.approx((matrix @ vector - value * vector).norm().item(), rel=1e-9)
        assert min(abs(value - true) for true in values) <= residual
        assert residual > 1e-3


def test_a_looser_tolerance_stops_earlier_and_keeps_its_word():
    matrix, _ = known(list(np.geomspace(1e-3, 10, 80)))
    loose, tight = (
        lanczos(lambda v: matrix @ v, start(80), 2, tol=tol, max_iter=80) for tol in (1e-1, 1e-6)
    )
    assert loose.products < tight.products
    assert (
        max(loose.residuals) <= 1e-1 * 10 and max(tight.residuals) <= 1e-6 * 10 and tight.converged
    )


@pytest.mark.parametrize(
    "values", [[4.0, 2.0, 0.0, 0.0, 0.0, -1.0], [3.0] * 6, [0.0] * 6, [2.0] * 3 + [1.0] * 3]
)
def test_all_pairs_of_a_small_matrix_are_found_even_where_values_repeat(values):
    matrix, _ = known(values)
    pairs = lanczos(lambda v: matrix @ v, start(6), 6, tol=1e-6)
    assert sorted(pairs.values) == pytest.approx(sorted(values), abs=1e-9)
    rebuilt = (
        pairs.vectors.T
        @ torch.diag(torch.tensor(pairs.values, dtype=torch.float64))
        @ pairs.vectors
    )
    close(rebuilt, matrix, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("which", "theirs"), [("algebraic", "LA"), ("magnitude", "LM")])
def test_top_eigenpairs_are_those_of_eigsh_and_of_the_whole_hessian(model, images, which, theirs):
    eigsh = pytest.importorskip("scipy.sparse.linalg").eigsh
    matrix = exact(model, images)
    pairs = top_eigenpairs(model, images, 3, tol=1e-6, max_iter=40, which=which)
    values, directions = eigsh(matrix.numpy(), 3, which=theirs)
    order = np.argsort(-values if which == "algebraic" else -abs(values))
    assert pairs.converged and pairs.values == pytest.approx(values[order], rel=1e-4)
    overlap = np.abs(pairs.vectors.numpy() @ directions[:, order])
    assert np.diag(overlap) == pytest.approx(np.ones(3), abs=1e-4)
    assert pairs.values[0] == pytest.approx(
        torch.linalg.eigvalsh(matrix).abs().max().item(), rel=1e-4
    )


@pytest.mark.slow
def test_directions_point_uphill_and_the_seed_decides_nothing_but_the_road(model, images):
    slope = weight_gradient(model, images)
    first, *others = (
        top_eigenpairs(model, images, 2, seed=seed, tol=1e-6).vectors for seed in (0, 0, 1, 2)
    )
    assert (first @ slope >= 0).all() and torch.equal(first, others[0])
    for other in others[1:]:
        assert not torch.equal(other, first)
        close(other, first, rtol=0, atol=1e-4)


def test_hutchinson_is_exact_where_the_matrix_is_diagonal():
    values = torch.tensor([3.0, -1.0, 0.5, 7.0])
    mean, error = hutchinson(lambda v: values * v, values, 5, torch.Generator().manual_seed(0))
    assert mean == pytest.approx(9.5) and error == pytest.approx(0, abs=1e-12)


def test_hutchinson_has_the_variance_of_its_theory():
    matrix, _ = known(list(range(-5, 15)))
    off = matrix - torch.diag(torch.diag(matrix))
    mean, error = hutchinson(
        lambda v: matrix @ v, start(20), 4000, torch.Generator().manual_seed(0)
    )
    assert error == pytest.approx((2 * (off**2).sum().item() / 4000) ** 0.5, rel=0.05)
    assert abs(mean - matrix.trace().item()) < 4 * error


def test_the_standard_error_is_the_sample_deviation_over_the_root_of_n():
    matrix, _ = known([1.0, 2.0, 3.0])
    probes = []
    mean, error = hutchinson(
        lambda v: probes.append(v.clone()) or matrix @ v,
        start(3),
        6,
        torch.Generator().manual_seed(2),
    )
    found = np.array([(z @ matrix @ z).item() for z in probes])
    assert (mean, error) == pytest.approx((found.mean(), found.std(ddof=1) / 6**0.5))
    assert {abs(value) for probe in probes for value in probe.tolist()} == {1.0}


@pytest.mark.slow
def test_trace_of_a_model_is_that_of_its_hessian_within_its_error(model, images):
    expected = torch.trace(exact(model, images)).item()
    mean, error = hessian_trace(model, images, 200, seed=1, batch_size=11)
    assert 0 < error < 0.2 * abs(expected) and abs(mean - expected) < 4 * error
    assert (
        hessian_trace(model, images, 3, seed=1)
        == hessian_trace(model, images, 3, seed=1)
        != hessian_trace(model, images, 3, seed=2)
    )


def test_otherare_cut_in_the_order_of_the_parameters(model):
    vector = torch.arange(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    pieces = split_vector(model, vector)
    assert list(pieces) == [name for name, _ in model.named_parameters()]
    assert torch.equal(flatten(pieces.values()), vector)
    channels_last = torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)
    assert torch.equal(flatten([channels_last]), torch.tensor(channels_last.tolist()).flatten())


def test_bad_othermodels_and_settings_are_named(model, images):
    with pytest.raises(
        ValueError, match=r"must be \(42,\) torch.float64.*got \(3,\) torch.float32"
    ):
        hessian_vector_product(model, images, torch.zeros(3))
    with pytest.raises(ValueError, match="batch_size.*got 0"):
        hessian_vector_product(model, images, vectors(model, 1)[0], 0)
    with pytest.raises(ValueError, match="float32, or all float64.*got torch.bfloat16"):
        hessian_trace(copy.deepcopy(model).bfloat16(), images)
    unfrozen = pixel_model(
        nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(32, 3))
    )
    with pytest.raises(ValueError, match="model.0 is a BatchNorm without running statistics"):
        hessian_trace(unfrozen, images)
    with torch.no_grad():
        model.model[6].weight[0, 0] = float("nan")
    for measure in (hessian_trace, top_eigenpairs, weight_gradient):
        with pytest.raises(ValueError, match="not finite"):
            measure(model, images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be a whole number"),
        ({"k": 7}, "at most the 6 parameters"),
        ({"k": 3, "max_iter": 2}, "max_iter=2"),
        ({"tol": 0.0}, "tol must lie"),
        ({"tol": float("nan")}, "tol must lie"),
        ({"which": "algebra"}, "Did you mean 'algebraic'"),
        ({"max_iter": 2.5}, "got 2.5"),
    ],
)
def test_bad_settings_of_a_search_are_named_before_any_product(settings, message):
    def refuse(_vector):
        raise AssertionError("a product was computed")

    with pytest.raises(ValueError, match=message):
        lanczos(refuse, start(6), **settings)
    with pytest.raises(ValueError, match="not zero"):
        lanczos(refuse, torch.zeros(6))
    with pytest.raises(ValueError, match="n_probes must be at least 2"):
        hutchinson(refuse, start(6), 1, torch.Generator())


def test_progress_goes_to_standard_error_only_if_asked(model, images, capfd):
    hessian_trace(model, images, 2)
    assert capfd.readouterr() == ("", "")
    hessian_trace(model, images, 2, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "trace" in err and "/2" in err

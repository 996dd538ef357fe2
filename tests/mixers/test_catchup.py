"""The operator against the paper: a naive NumPy loop, properties, gradients, memory, passes,
synchronisation.
"""

import math
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from catchup import (
    CatchUpMix,
    CutMix,
    Draw,
    Target,
    filter_influence,
    keep_mask,
    mix_channels,
    relative_filter_influence,
)
from conftest import TinyNet


def paper_mix(maps: np.ndarray, partner: list[int], lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 1 one pair and one filter at a time, from Eqs. 4-6; nothing imported from the
    package.
    """
    mixed, kept = maps.copy(), np.zeros(maps.shape[:2], dtype=bool)
    for i, j in enumerate(partner):
        fi_source = [
            math.sqrt(sum(v * v for v in maps[i, c].ravel().tolist())) for c in range(maps.shape[1])
        ]
        fi_target = [
            math.sqrt(sum(v * v for v in maps[j, c].ravel().tolist())) for c in range(maps.shape[1])
        ]
        total_s, total_t = sum(fi_source) or 1.0, sum(fi_target) or 1.0
        rfi = [s / total_s - t / total_t for s, t in zip(fi_source, fi_target)]
        order = sorted(range(len(rfi)), key=lambda c: (rfi[c], c))
        k = math.floor(lam * len(rfi))
        for c in order[:k]:
            kept[i, c] = True
        for c in order[k:]:
            mixed[i, c] = maps[j, c]
    return mixed, kept


def a_case(number: int) -> tuple[np.ndarray, list[int], float]:
    """A random case; some have zero maps, zero images, exact ties, K = 0 or K = C."""
    rng = np.random.default_rng(number)
    b, c, h, w = rng.integers(1, 6), rng.integers(1, 10), rng.integers(1, 5), rng.integers(1, 5)
    maps = rng.normal(size=(b, c, h, w))
    kind = number % 6
    if kind == 1:
        maps[rng.random((b, c)) < 0.4] = 0  # dead filters
    if kind == 2:
        maps[rng.integers(b)] = 0  # an image nothing answers to
    if kind == 3:  # exact ties: powers of two, every norm and every share exact in floating point
        maps = np.zeros((b, 4, h, w))
        maps[:, :, 0, 0] = 2.0 ** rng.integers(0, 2, size=(b, 1))
    lam = float(rng.random()) if kind < 4 else float(kind - 4)
    return maps, rng.permutation(b).tolist(), lam


@pytest.mark.slow
def test_equals_the_paper_on_1200_random_cases():
    kinds = set()
    for number in range(1200):
        maps, partner, lam = a_case(number)
        expected, kept = paper_mix(maps, partner, lam)
        x, p = torch.from_numpy(maps), torch.tensor(partner)
        influence = filter_influence(x)
        keep = keep_mask(relative_filter_influence(influence, influence[p]), lam)
        assert np.array_equal(keep.numpy(), kept), f"case {number}"
        assert np.array_equal(mix_channels(x, p, keep).numpy(), expected), f"case {number}"
        mixed = CatchUpMix(seed=0).mix(x, Draw(1, p, lam))
        assert torch.equal(mixed.maps, mix_channels(x, p, keep)) and mixed.own_weight == lam
        kinds.add((kept.sum() == 0, kept.all(), bool((maps == 0).all(axis=(1, 2, 3)).any())))
    assert {k[0] for k in kinds} == {k[1] for k in kinds} == {k[2] for k in kinds} == {True, False}


def test_ties_go_to_the_lower_channel():
    keep = keep_mask(torch.tensor([[0.0, 0.0, -1.0, 0.0]]), 0.5)
    assert keep.tolist() == [[True, False, True, False]]


def test_worked_example_by_hand():
    """Two images, three 1x2 maps with norms (5, 3, 2) and (1, 1, 8): RFI of the first is (.4, .2,
    -.6).
    """
    maps = torch.tensor(
        [[[[3.0, 4.0]], [[0.0, 3.0]], [[2.0, 0.0]]], [[[1.0, 0.0]], [[0.0, 1.0]], [[8.0, 0.0]]]]
    )
    influence = filter_influence(maps)
    assert influence.tolist() == [[5, 3, 2], [1, 1, 8]]
    rfi = relative_filter_influence(influence, influence.flip(0))
    torch.testing.assert_close(rfi, torch.tensor([[0.4, 0.2, -0.6], [-0.4, -0.2, 0.6]]))
    keep = keep_mask(rfi, 0.5)  # floor(1.5) = 1
    assert keep.tolist() == [[False, False, True], [True, False, False]]
    mixed = mix_channels(maps, torch.tensor([1, 0]), keep)
    assert mixed[0].tolist() == [[[1, 0]], [[0, 1]], [[2, 0]]]
    assert mixed[1].tolist() == [[[1, 0]], [[0, 3]], [[2, 0]]]


@pytest.mark.parametrize("c", [1, 2, 7, 64])
@pytest.mark.parametrize("lam", [0.0, 1e-9, 0.29, 0.5, 0.999, 1.0])
def test_exactly_floor_lambda_c_are_kept_in_every_row(c, lam):
    keep = keep_mask(torch.randn(5, c), lam)
    assert (keep.sum(dim=1) == math.floor(lam * c)).all()


def test_rfi_rows_sum_to_zero_and_lie_in_plus_minus_one():
    a, b = torch.rand(9, 20), torch.rand(9, 20)
    rfi = relative_filter_influence(a, b)
    assert rfi.abs().max() <= 1 and rfi.sum(dim=1).abs().max() < 1e-6
    scaled = relative_filter_influence(a * 1000, b / 7)  # an image's overall scale does not matter
    torch.testing.assert_close(rfi, scaled)
    torch.testing.assert_close(rfi, relative_filter_influence(a * 1e-6, b * 1e-9))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_norms_of_half_precision_maps_are_taken_in_float32(dtype):
    maps = torch.full((2, 3, 16, 16), 300.0, dtype=dtype)  # the sum of squares overflows float16
    influence = filter_influence(maps)
    assert influence.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(influence, torch.full_like(influence, 300 * 16), rtol=1e-2, atol=0)
    assert CatchUpMix(seed=0).mix(maps, Draw(1, [1, 0], 0.5)).maps.dtype == dtype


def test_channels_last_is_kept_and_gives_the_same():
    maps, partner = torch.randn(6, 5, 4, 3), torch.randperm(6)
    plain = CatchUpMix(seed=0).mix(maps, Draw(1, partner, 0.4)).maps
    last = (
        CatchUpMix(seed=0)
        .mix(maps.contiguous(memory_format=torch.channels_last), Draw(1, partner, 0.4))
        .maps
    )
    assert last.is_contiguous(memory_format=torch.channels_last) and torch.equal(plain, last)


def test_gradients_are_right_twice_over():
    maps = torch.randn(4, 5, 2, 3, dtype=torch.float64, requires_grad=True)
    partner, keep = torch.tensor([2, 0, 3, 1]), torch.rand(4, 5) < 0.5
    assert torch.autograd.gradcheck(lambda m: mix_channels(m, partner, keep), maps)
    assert torch.autograd.gradgradcheck(lambda m: mix_channels(m, partner, keep), maps)


def test_gradient_of_an_image_reaches_only_its_kept_filters_and_those_its_borrower_took():
    maps = torch.randn(4, 6, 3, 3, requires_grad=True)
    partner, keep = torch.tensor([1, 2, 3, 0]), torch.rand(4, 6) < 0.5
    mix_channels(maps, partner, keep)[0].sum().backward()  # only the mixed image 0 has a loss
    reached = maps.grad.abs().sum(dim=(2, 3)) > 0
    assert torch.equal(reached[0], keep[0]) and torch.equal(reached[1], ~keep[0])
    assert not reached[2:].any()


def test_gradient_of_the_ranking_is_cut():
    maps = torch.randn(3, 4, 2, 2, requires_grad=True)
    assert not filter_influence(maps).requires_grad
    mixed = CatchUpMix(seed=0).mix(maps, Draw(1, [1, 2, 0], 0.5))
    assert mixed.keep.dtype == torch.bool and mixed.keep.shape == (3, 4, 1, 1)
    mixed.maps.sum().backward()
    # whole numbers: copies of the incoming ones only
    assert torch.equal(maps.grad, maps.grad.round())


class Largest(TorchDispatchMode):
    """The most bytes of feature-map-sized tensors alive at once that were made inside the block."""

    def __init__(self, numel: int, known: set[int]):
        super().__init__()
        self.numel, self.known, self.alive, self.peak = numel, known, {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.numel() >= self.numel:
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.known:
                    self.alive[storage.data_ptr()] = storage.nbytes()
                    weakref.finalize(tensor, self.alive.pop, storage.data_ptr(), None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return out


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_no_single_allocation_of_a_step_exceeds_one_feature_map(dtype, memory_format):
    """Counted inside the kernels too, where a norm in float32 may copy a half precision map
    whole.
    """
    maps = torch.randn(16, 32, 24, 24).to(dtype).contiguous(memory_format=memory_format)
    mixer, draw = CatchUpMix(seed=0), Draw(1, torch.randperm(16), 0.5)
    mixer.mix(maps, draw)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        mixer.mix(maps, draw)
    size = maps.numel() * maps.element_size()
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert size <= largest <= 1.1 * size  # the mixed map, and the mask with it


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_is_one_more_feature_map_forward_and_backward(memory_format):
    maps = torch.randn(8, 16, 12, 12).contiguous(memory_format=memory_format).requires_grad_()
    partner, keep = torch.randperm(8), torch.rand(8, 16) < 0.5
    grad = torch.randn(8, 16, 12, 12).contiguous(memory_format=memory_format)
    size = maps.numel() * 4
    with Largest(maps.numel(), known={maps.data_ptr(), grad.data_ptr()}) as used:
        filter_influence(maps)
        mixed = mix_channels(maps, partner, keep)
        assert used.peak == size
        torch.autograd.grad(mixed, maps, grad)
    assert used.peak == 2 * size  # the mixed map and the gradient it sends back


def test_one_forward_and_one_backward_pass(batch):
    model, passes = TinyNet(), {"forward": 0, "backward": 0}
    model.register_forward_hook(lambda *_: passes.__setitem__("forward", passes["forward"] + 1))
    model.fc.register_full_backward_hook(
        lambda *_: passes.__setitem__("backward", passes["backward"] + 1)
    )
    mixer = CatchUpMix(seed=0)
    for step in range(1, 13):
        mixer.loss(model, *batch).backward()
        assert passes == {"forward": step, "backward": step}


@pytest.mark.parametrize("layer", [0, 1, 2, 3, None])
def test_nothing_in_a_step_waits_for_the_device(layer):
    """Meta tensors have no values: a step that read one back, anywhere, would fail here."""
    with torch.device("meta"):
        model, images, labels = (
            TinyNet(),
            torch.empty(6, 3, 8, 8),
            torch.empty(6, dtype=torch.int64),
        )
    mixer = CatchUpMix(seed=0)
    loss = mixer.loss(model, images, labels, draw=Draw(layer, [1, 2, 3, 4, 5, 0], 0.4))
    loss.backward()
    assert loss.device.type == "meta" and mixer.last.draw.layer == layer


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_loss_is_the_papers_eqs_3_and_7(tiny, batch, layer):
    """The network run in two halves by hand, mixed by the naive loop in between."""
    images, labels = batch
    partner, lam = torch.tensor([3, 0, 1, 2, 6, 4, 5]), 0.43
    mixer = CatchUpMix(seed=0)
    loss = mixer.loss(tiny, images, labels, draw=Draw(layer, partner, lam))
    parts = [tiny.stem, tiny.layer1, tiny.layer2]
    maps = images
    for part in parts[:layer]:
        maps = part(maps)
    mixed, kept = paper_mix(maps.detach().numpy().astype(np.float64), partner.tolist(), lam)
    rest = torch.from_numpy(mixed).float()
    for part in parts[layer:]:
        rest = part(rest)
    logits = tiny.fc(rest.mean(dim=(2, 3)))
    expected = lam * F.cross_entropy(logits, labels) + (1 - lam) * F.cross_entropy(
        logits, labels[partner]
    )
    torch.testing.assert_close(loss, expected)
    assert np.array_equal(mixer.last.keep[:, :, 0, 0].numpy(), kept)
    assert (mixer.last.own_weight, mixer.last.block) == (
        lam,
        ["stem", "layer1", "layer2"][layer - 1],
    )


def test_label_rule_can_be_the_share_really_kept(tiny, batch):
    mixer = CatchUpMix(seed=0, label_rule="kept")
    mixer.loss(tiny, *batch, draw=Draw(1, range(6, -1, -1), 0.5))  # 6 channels
    assert mixer.last.own_weight == 3 / 6
    mixer.loss(tiny, *batch, draw=Draw(3, range(6, -1, -1), 0.3))  # 8 channels: floor(2.4) = 2
    assert mixer.last.own_weight == 2 / 8
    mixer.loss(tiny, *batch, draw=Draw(1, range(6, -1, -1), 0.8))  # 6 channels: floor(4.8) = 4
    assert mixer.last.own_weight == 4 / 6


def test_layer_0_hands_over_to_cutmix_mixup_or_nothing(tiny, batch):
    draw = Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.4, seed=5)
    same = CutMix(seed=0).loss(tiny, *batch, draw=draw)
    torch.testing.assert_close(CatchUpMix(seed=0).loss(tiny, *batch, draw=draw), same)
    mixup = CatchUpMix(seed=0, input_mix="mixup")
    mixup.loss(tiny, *batch, draw=draw)
    assert mixup.last.keep is None and mixup.last.own_weight == 0.4
    plain = CatchUpMix(seed=0, input_mix="none").loss(tiny, *batch, draw=draw)
    torch.testing.assert_close(plain, F.cross_entropy(tiny(batch[0]), batch[1]))


def test_layer_0_draws_lambda_from_its_own_alpha():
    """Beta(1, 1) has variance 1/12, Beta(50, 50) 1/404: they cannot be mistaken."""
    rng, mixer = np.random.default_rng(0), CatchUpMix(alpha=50.0, seed=0)
    draws = [mixer.draw(2, 5, rng) for _ in range(3000)]
    inputs, features = ([d.lam for d in draws if (d.layer == 0) is at] for at in (True, False))
    assert np.var(inputs) == pytest.approx(1 / 12, rel=0.15)
    assert np.var(features) == pytest.approx(1 / 404, rel=0.15)


def test_layer_0_alone_needs_no_blocks(batch):
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    CatchUpMix(seed=0, layers=(0,)).loss(linear, *batch).backward()
    with pytest.raises(ValueError, match="found no layer blocks"):
        CatchUpMix(seed=0).loss(linear, *batch)


@pytest.mark.slow
def test_layers_are_drawn_uniformly_and_only_from_the_set():
    rng = np.random.default_rng(0)
    counts = np.bincount(
        [CatchUpMix(seed=0).draw(2, 5, rng).layer for _ in range(6000)], minlength=6
    )
    assert len(counts) == 6 and abs(counts - 1000).max() < 150  # five standard deviations
    some = {CatchUpMix(seed=0, layers=(0, 3)).draw(2, 5, rng).layer for _ in range(100)}
    assert some == {0, 3}


def test_probability_of_mixing():
    rng, mixer = np.random.default_rng(0), CatchUpMix(prob=0.25, seed=0)
    mixes = [mixer.draw(2, 5, rng).layer is not None for _ in range(4000)]
    assert np.mean(mixes) == pytest.approx(0.25, abs=0.035)


def test_a_step_that_does_not_mix_is_the_plain_step(tiny, batch):
    mixer = CatchUpMix(prob=0.0, seed=0)
    assert torch.equal(
        mixer.loss(tiny, *batch), Target((batch[1],), (1.0,)).cross_entropy(tiny(batch[0]))
    )
    step = mixer.last
    assert (step.draw.layer, step.block, step.own_weight, step.keep) == (None, None, 1.0, None)
    # no partner's label with a weight of zero: 0 times infinity is no number
    assert step.target.weights == (1.0,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alpha": 0.0}, "alpha must be a positive number, got 0.0"),
        ({"alpha": float("nan")}, "alpha must be a positive number, got nan"),
        ({"alpha": float("inf")}, "got inf"),
        ({"prob": 1.5}, "prob must lie in [0, 1], got 1.5"),
        ({"layers": ()}, "at least one"),
        ({"layers": (1, 1)}, "none twice"),
        ({"blocks": ("stem", "stem")}, "none twice"),
        ({"input_mix": "cutmx"}, "Did you mean 'cutmix'?"),
        ({"label_rule": "lamda"}, "unknown label rule 'lamda'"),
        ({"criterion": "bce_sofmax"}, "Did you mean 'bce_softmax'?"),
        ({"input_alpha": -1.0}, "alpha must be a positive number, got -1.0"),
    ],
)
def test_bad_settings_are_refused_with_the_value(settings, words):
    with pytest.raises(ValueError) as error:
        CatchUpMix(**settings)
    assert words in str(error.value)


def test_bad_arguments_of_the_functions():
    with pytest.raises(ValueError, match="one shape"):
        relative_filter_influence(torch.rand(2, 3), torch.rand(2, 4))
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\], got 1.01"):
        keep_mask(torch.rand(2, 3), 1.01)
    with pytest.raises(ValueError, match=r"rfi must be \(B, C\)"):
        keep_mask(torch.rand(3), 0.5)
    with pytest.raises(ValueError, match="permutation"):
        Draw(1, [0, 0, 1], 0.5)
    maps = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match="permutation"):
        mix_channels(maps, torch.tensor([0, 0]), torch.zeros(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"keep bool \(B, C\)"):
        mix_channels(maps, torch.tensor([1, 0]), torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"maps must be \(B, C, H, W\) floating, got \(2, 3\)"):
        filter_influence(torch.rand(2, 3))
    with pytest.raises(ValueError, match="layers must be integers"):
        CatchUpMix(layers=(1.0,))
    with pytest.raises(ValueError, match="lam must lie in"):
        Draw(1, [0, 1], -0.1)

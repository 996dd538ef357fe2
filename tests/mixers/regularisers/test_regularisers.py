"""What every regulariser must satisfy, over the registry, alone and with mixing methods; then
Cutout and smoothing.
"""

import copy
import json
import pickle
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from joined import together
from test_mixers import ROWS as METHOD_ROWS
from torch import nn

from catchup import MIXERS, Draw, Target, count_hooks
from catchup.hooks.compiled import compile_blocks
from catchup.hooks.layers import evaluating
from catchup.mixers import make
from catchup.mixers.regularisers import REGULARISERS, parse
from catchup.mixers.regularisers.cutout import Cutout, holes
from catchup.mixers.regularisers.seeds import generator, numbers
from catchup.models import BasicBlock


@dataclass(frozen=True)
class Row:
    """What the tests must know of a regulariser: settings that act strongly, that turn it off, and
    where it acts.
    """

    on: str
    off: str
    where: str  # "images", "labels", "model" or "loss"


ROWS = {
    "cutout": Row("cutout:size=5", "cutout:prob=0", "images"),
    "labelsmoothing": Row("labelsmoothing:epsilon=0.3", "labelsmoothing:epsilon=0", "labels"),
    "dropblock": Row("dropblock:keep=0.6,block=2", "dropblock:keep=1", "model"),
    "stochdepth": Row("stochdepth:survival=0.3", "stochdepth:survival=1", "model"),
    "shakedrop": Row("shakedrop:survival=0.3", "shakedrop:survival=1", "model"),
    "augmix": Row("augmix:mean=0.5,std=0.25", "augmix:mean=0.5,std=0.25,weight=0", "loss"),
}
METHODS = ("baseline", "mixup", "cutmix", "catchup")
INSIDE = [name for name, row in ROWS.items() if row.where == "model"]
CHANCE = [name for name in ROWS if name != "labelsmoothing"]


class Residual(nn.Module):
    """A stem and two stages of one residual block each."""

    def __init__(self, classes: int = 5, channels: int = 3):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.layer1 = nn.Sequential(BasicBlock(6, 6, 1))
        self.layer2 = nn.Sequential(BasicBlock(6, 8, 2))
        self.fc = nn.Linear(8, classes)

    def forward(self, images):
        return self.fc(self.layer2(self.layer1(self.stem(images))).mean(dim=(2, 3)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Residual()


def batch_of(size: int = 7, seed: int = 1, side: int = 8):
    """Normalised images (size, 3, side, side), as if by mean 0.5 and std 0.25, and labels of 5
    classes.
    """
    dice = torch.Generator().manual_seed(seed)
    return (torch.rand(size, 3, side, side, generator=dice) - 0.5) / 0.25, torch.randint(
        5, (size,), generator=dice
    )


def begun(method: str, model: nn.Module, *specs: str, seed: int = 0):
    mixer = make(method, seed=seed, regularisers=specs, **METHOD_ROWS[method].settings)
    mixer.check(model)
    mixer.begin_run(model, 5)
    return mixer


def gradients(loss: torch.Tensor, model: nn.Module) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_every_regulariser_has_a_row_a_title_and_a_line():
    assert set(ROWS) == set(REGULARISERS)
    for kind in REGULARISERS.values():
        assert kind.title and "(" in kind.about and len(kind.passes) == 2


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("method", METHODS)
def test_turned_off_it_is_the_plain_step_bit_for_bit(name, method, model):
    plain, off = begun(method, model), begun(method, model, ROWS[name].off)
    for _ in range(3):
        expected = plain.loss(model, *batch_of())
        slopes = gradients(expected, model)
        loss = off.loss(model, *batch_of())
        assert torch.equal(loss, expected) and torch.equal(gradients(loss, model), slopes)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("method", METHODS)
def test_it_acts_with_the_method_and_leaves_nothing_behind(name, method, model):
    plain, mixer, (images, labels) = (
        begun(method, model),
        begun(method, model, ROWS[name].on),
        batch_of(),
    )
    weights, seen = copy.deepcopy(dict(model.named_parameters())), images.clone()
    modes = [module.training for module in model.modules()]
    different = 0
    for _ in range(4):
        expected, loss = plain.loss(model, images, labels), mixer.loss(model, images, labels)
        different += not torch.allclose(loss, expected, rtol=1e-6, atol=0)
        assert (
            gradients(loss, model).isfinite().all()
            and loss.shape == ()
            and loss.dtype == torch.float32
        )
    assert different >= 2  # a shallow model may keep all its branches now and then
    assert count_hooks(model) == 0 and torch.equal(images, seen)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(weights[key], value) for key, value in model.named_parameters())


@pytest.mark.slow
@pytest.mark.parametrize("method", MIXERS)
def test_all_of_them_together_with_every_method(method, model):
    # each its own: a look-up in evaluation mode sees running statistics
    models = (model, copy.deepcopy(model))
    mixers = [begun(method, one, *(row.on for row in ROWS.values()), seed=3) for one in models]
    for _ in range(3):
        losses = [mixer.loss(one, *batch_of()) for mixer, one in zip(mixers, models)]
        assert torch.equal(*losses) and gradients(losses[0], model).isfinite().all()
        for mixer, one in zip(mixers, models):
            mixer.end_step(one)
    assert count_hooks(model) == 0


@pytest.mark.parametrize("name", ROWS)
def test_a_draw_replayed_gives_the_same_loss_and_gradient_and_another_seed_another(name, model):
    mixer = begun("cutmix", model, ROWS[name].on)
    # λ = 1: cutmix itself changes nothing
    draws = [Draw(0, range(7), 1.0, seed=seed) for seed in range(8)]
    first = [gradients(mixer.loss(model, *batch_of(), draw=draw), model) for draw in draws]
    again = [
        gradients(mixer.loss(model, *batch_of(), draw=Draw(**draw.as_dict())), model)
        for draw in draws
    ]
    assert all(torch.equal(one, other) for one, other in zip(first, again))
    distinct = {tuple(slopes.tolist()) for slopes in first}
    assert len(distinct) == 1 if name == "labelsmoothing" else len(distinct) >= 2


@pytest.mark.parametrize("name", ROWS)
def test_global_generators_are_left_alone(name, model):
    before = torch.get_rng_state()
    begun("cutmix", model, ROWS[name].on).loss(model, *batch_of())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("side", [4, 5])
def test_any_batch_size_and_images_smaller_than_the_square(name, size, side, model):
    for method in ("cutmix", "catchup"):
        assert (
            begun(method, model, ROWS[name].on).loss(model, *batch_of(size, side=side)).isfinite()
        )


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_and_images(name, dtype, model):
    images, labels = batch_of()
    mixer = begun("catchup", model.to(dtype), ROWS[name].on)
    for _ in range(3):
        loss = mixer.loss(model, images.to(dtype), labels)
        assert loss.dtype == torch.float32 and gradients(loss, model).isfinite().all()


@pytest.mark.parametrize("name", ROWS)
def test_under_autocast(name, model):
    images, labels = batch_of()
    draw = Draw(0, range(7), 1.0, seed=4)
    mixer = begun("cutmix", model, ROWS[name].on)
    full = mixer.loss(model, images, labels, draw=draw)
    with torch.autocast("cpu", torch.bfloat16):
        loss = mixer.loss(model, images, labels, draw=draw)
    assert loss.dtype == torch.float32
    # the same squares, blocks, branches
    torch.testing.assert_close(loss, full, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("name", ROWS)
def test_channels_last_gives_the_same(name, model):
    images, labels = batch_of(side=16)
    draw = Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.6, seed=4)
    mixer = begun("cutmix", model, ROWS[name].on)
    expected = mixer.loss(model, images, labels, draw=draw)
    other = images.contiguous(memory_format=torch.channels_last)
    seen = mixer.memory.regularisers[0].images(other, 4)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    kept = []
    model.layer2.register_forward_hook(
        lambda _m, _a, maps: kept.append(maps.is_contiguous(memory_format=torch.channels_last))
    )
    loss = mixer.loss(model.to(memory_format=torch.channels_last), other, labels, draw=draw)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert all(kept)


@pytest.mark.parametrize("name", ROWS)
def test_deep_copies_and_pickles_go_on_alike(name, model):
    mixer = begun("mixup", model, ROWS[name].on)
    mixer.loss(model, *batch_of())
    twins = copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))
    expected = mixer.loss(model, *batch_of())
    assert all(torch.equal(twin.loss(model, *batch_of()), expected) for twin in twins)


@pytest.mark.parametrize("name", INSIDE)
def test_passes_in_evaluation_mode_are_left_alone(name, model):
    regulariser, (images, _) = parse(ROWS[name].on), batch_of()
    with evaluating(model), torch.no_grad():
        expected = model(images)
    with regulariser.around(model, 5):
        with evaluating(model), torch.no_grad():
            looked_up = model(images)
        trained = model(images)
    assert torch.equal(looked_up, expected) and not torch.allclose(trained, expected, atol=1e-3)


@pytest.mark.parametrize("name", INSIDE)
def test_frozen_batch_norm_does_not_silence_it_a_frozen_stage_does(name, model):
    (images, _), frozen = batch_of(), copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with parse(ROWS[name].on).around(model, 5):
        assert not torch.equal(model(images), copy.deepcopy(model).eval()(images))
    with parse(ROWS[name].on).around(frozen, 5):
        assert torch.equal(frozen.eval()(images), copy.deepcopy(frozen)(images))


@pytest.mark.parametrize("name", INSIDE)
def test_two_passes_of_a_step_differ_and_both_come_back(name, model):
    images, _ = batch_of()

    def passes():
        with parse(ROWS[name].on).around(model, 6):
            return [model(images) for _ in range(4)]

    first, again = passes(), passes()
    assert all(torch.equal(one, other) for one, other in zip(first, again))
    assert len({tuple(one.flatten().tolist()) for one in first}) >= 2


@pytest.mark.parametrize("name", INSIDE)
def test_hooks_go_also_after_an_error(name, model):
    with pytest.raises(ZeroDivisionError), parse(ROWS[name].on).around(model, 0):
        assert count_hooks(model) > 0
        raise ZeroDivisionError
    assert count_hooks(model) == 0


@pytest.mark.parametrize("name", INSIDE)
def test_where_a_second_run_would_miss_it_it_refuses(name, model):
    images, _ = batch_of()
    with pytest.raises(RuntimeError, match="checkpointing"), parse(ROWS[name].on).around(model, 0):
        torch.utils.checkpoint.checkpoint(model, images, use_reentrant=False)
    with pytest.raises(RuntimeError, match="in training mode without gradients"):
        with parse(ROWS[name].on).around(model, 0), torch.no_grad():
            model(images)
    with pytest.raises(RuntimeError, match="did not run"), parse(ROWS[name].on).around(model, 0):
        model.stem(images)
    assert count_hooks(model) == 0


@pytest.mark.slow
def test_whole_compiled_blocks_can_be_acted_behind_branches_inside_them_cannot(model):
    images, labels = batch_of()
    compiled = compile_blocks(copy.deepcopy(model), backend="eager")
    expected = begun("cutmix", model, "dropblock:keep=0.6,block=2").loss(model, images, labels)
    loss = begun("cutmix", model, "dropblock:keep=0.6,block=2").loss(compiled, images, labels)
    torch.testing.assert_close(loss, expected)
    with pytest.raises(RuntimeError, match="inside the compiled block 'layer1'"):
        begun("cutmix", model, "stochdepth").loss(compiled, images, labels)
    with pytest.raises(RuntimeError, match="compile its blocks"):
        begun("cutmix", model, "dropblock").loss(
            torch.compile(model, backend="eager"), images, labels
        )
    assert count_hooks(model) == count_hooks(compiled) == 0


@pytest.mark.parametrize("name", ("stochdepth", "shakedrop"))
def test_a_model_without_branches_is_refused_before_the_first_step(name, tiny, batch):
    mixer = make("cutmix", seed=0, regularisers=(name,))
    for call in (lambda: mixer.check(tiny), lambda: mixer.loss(tiny, *batch)):
        with pytest.raises(
            ValueError, match=r"no residual branches in TinyNet.*branches=\(\"layer\*\.bn2\",\)"
        ):
            call()
    named = make("cutmix", seed=0, regularisers=(f"{name}:branches=layer1.2",))
    named.check(tiny)
    assert named.loss(tiny, *batch).isfinite()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cutout:size=0", "size must be a whole number of at least 1 pixel, got 0"),
        ("cutout:size=2.5", "got 2.5"),
        ("cutout:prob=1.5", "prob must lie in [0, 1], got 1.5"),
        ("labelsmoothing:epsilon=-0.1", "epsilon must lie in [0, 1], got -0.1"),
        ("dropblock:keep=0", "keep must lie in (0, 1], got 0"),
        ("dropblock:block=0", "block must be a whole number of at least 1, got 0"),
        ("dropblock:bloc=4", "Did you mean 'block'"),
        ("stochdepth:survival=0", "survival must lie in (0, 1], got 0"),
        ("stochdepth:per=row", "unknown per 'row'. Choose one of: batch, image"),
        ("shakedrop:survival=1.2", "survival must lie in (0, 1], got 1.2"),
        (
            "shakedrop:alpha=(-3,1)",
            "branches are divided by it, got survival 0.5 and alpha (-3, 1)",
        ),
        (
            "shakedrop:beta=(1,0)",
            "beta must be the two ends of a range, the lower first, got (1, 0)",
        ),
        ("shakedrop:per=batches", "Did you mean 'batch'"),
        ("augmix:severity=11", "severity must lie in [0.1, 10], got 11"),
        ("augmix:weight=-1", "weight must lie in"),
        ("augmix:alpha=0", "alpha must lie in"),
        ("augmix:width=0", "width must be a whole number of at least 1, got 0"),
        ("augmix:depth=1.5", "depth must be a whole number of at least 1, got 1.5"),
    ],
)
def test_settings_that_do_not_fit_are_refused(text, words):
    with pytest.raises(ValueError) as error:
        parse(text)
    assert words in str(error.value)


def test_no_two_regularisers_or_layers_throw_the_same_dice():
    names = [*ROWS, "cutmix"]
    first = {
        torch.rand(1, generator=generator(5, name, layer)).item()
        for name in names
        for layer in range(4)
    }
    assert len(first) == 4 * len(names)
    assert len({numbers(5, name).random() for name in names}) == len(names)
    assert (
        numbers(5, "cutout").random()
        == numbers(5, "cutout").random()
        != numbers(6, "cutout").random()
    )


# -- Cutout ----------------------------------------------------------------------------------------


def slow_hole(height, width, row, column, size):
    """The square of one image, pixel by pixel: as many pixels as `size` around its centre, those
    outside cut off.
    """
    mask = torch.zeros(height, width, dtype=torch.bool)
    for y in range(row - size // 2, row - size // 2 + size):
        for x in range(column - size // 2, column - size // 2 + size):
            if 0 <= y < height and 0 <= x < width:
                mask[y, x] = True
    return mask


@pytest.mark.parametrize("size", [1, 2, 3, 8, 40])
def test_holes_are_those_of_the_loop(size):
    centres = torch.tensor([[0, 0], [4, 7], [8, 10], [3, 0], [0, 5]])
    expected = torch.stack([slow_hole(9, 11, *centre, size) for centre in centres.tolist()])[
        :, None
    ]
    assert torch.equal(holes(9, 11, centres, size), expected)
    assert holes(64, 64, torch.tensor([[32, 32]]), size).sum() == size**2


def test_cutout_sets_one_square_of_each_image_to_zero_and_centres_fall_everywhere():
    images = torch.rand(4000, 2, 6, 5) + 1
    cut = Cutout(size=1).images(images, seed=3)
    gone = cut == 0
    assert torch.equal(cut, torch.where(gone, 0, images)) and torch.equal(gone[:, 0], gone[:, 1])
    assert (gone[:, 0].flatten(1).sum(dim=1) == 1).all()
    # every pixel as likely: 4000 / 30 each, within five standard errors
    counts = gone[:, 0].flatten(1).sum(dim=0)
    assert (counts - 4000 / 30).abs().max() < 5 * (4000 / 30) ** 0.5


def test_cutout_with_a_probability_leaves_that_share_of_the_images_alone():
    images = torch.rand(2000, 1, 6, 6) + 1
    whole = (Cutout(size=20, prob=0.3).images(images, seed=1) != 0).flatten(1)
    assert (whole.all(dim=1) | ~whole.any(dim=1)).all()
    assert abs(whole[:, 0].float().mean() - 0.7) < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_mixing_sees_the_cut_images(model):
    images, labels = batch_of()
    mixer = begun("cutmix", model, "cutout:size=3")
    draw, shown = Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.5, seed=9), []
    with mixer.watched(lambda _block, _draw, mixed: shown.append(mixed.maps)):
        mixer.loss(model, images, labels, draw=draw)
    cut = Cutout(size=3).images(images, 9)
    assert torch.equal(shown[0], make("cutmix").mix(cut, draw).maps) and not torch.equal(
        cut, images
    )
    with pytest.raises(ValueError, match=r"cutout needs images \(B, C, H, W\), got \(2, 3, 8\)"):
        Cutout().images(torch.rand(2, 3, 8), 0)


# -- label smoothing -------------------------------------------------------------------------------


def test_smoothing_is_pytorchs_on_each_side_of_a_mixed_label(model):
    images, labels = batch_of()
    mixer = begun("mixup", model, "labelsmoothing")
    draw = Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.3)
    loss, logits = mixer.loss(model, images, labels, draw=draw), mixer.last.logits
    expected = sum(
        share * F.cross_entropy(logits, side, label_smoothing=0.1)
        for share, side in ((0.3, labels), (0.7, labels[draw.partner]))
    )
    torch.testing.assert_close(loss, expected)
    rows = mixer.last.target.soft(5)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(7))
    by_hand = torch.full((7, 5), 0.1 / 5)
    for image in range(7):
        by_hand[image, labels[image]] += 0.9 * 0.3
        by_hand[image, labels[draw.partner[image]]] += 0.9 * 0.7
    torch.testing.assert_close(rows, by_hand)


def test_smoothing_keeps_weights_that_do_not_sum_to_one_and_the_other_criterion(model):
    smoothing, labels = parse("labelsmoothing:epsilon=0.2"), torch.tensor([0, 2])
    target = smoothing.target(Target((labels, labels.flip(0)), (torch.tensor([0.5, 0.1]), 0.4)), 4)
    torch.testing.assert_close(target.soft(4).sum(dim=1), torch.tensor([0.9, 0.5]))
    mixer = make("cutmix", seed=0, criterion="bce_softmax", regularisers=("labelsmoothing",))
    loss = mixer.loss(model, *batch_of())
    p = mixer.last.logits.softmax(dim=1)
    torch.testing.assert_close(loss, F.binary_cross_entropy(p, mixer.last.target.soft(5)))


# -- two processes ---------------------------------------------------------------------------------


def trained_together(rank: int) -> list[list]:
    """Each regulariser in one of two processes: its name, hooks left, sums of the squared
    weights.
    """
    torch.distributed.init_process_group("gloo")
    rows = []
    for name, row in ROWS.items():
        torch.manual_seed(0)
        bare = Residual()
        mixer, model = begun("catchup", bare, row.on), nn.parallel.DistributedDataParallel(bare)
        optimizer = torch.optim.SGD(bare.parameters(), 0.1)
        for step in range(4):
            mixer.loss(model, *batch_of(seed=10 * step + rank)).backward()
            optimizer.step()
            optimizer.zero_grad()
        rows.append(
            [
                name,
                count_hooks(bare),
                *(p.double().square().sum().item() for p in bare.parameters()),
            ]
        )
    torch.distributed.destroy_process_group()
    return rows


@pytest.mark.slow
def test_two_ddp_processes_stay_equal_and_average_their_gradients(tmp_path):
    assert together(
        lambda rank: (tmp_path / str(rank)).write_text(json.dumps(trained_together(rank)))
    ) == [0, 0]
    rows = json.loads((tmp_path / "0").read_text())
    assert rows == json.loads((tmp_path / "1").read_text())
    assert [row[:2] for row in rows] == [[name, 0] for name in ROWS]
    for name, _, *sums in rows:
        torch.manual_seed(0)  # the same by hand: one process, the mean of the two gradients
        model = Residual()
        twins = begun("catchup", model, ROWS[name].on), begun("catchup", model, ROWS[name].on)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for step in range(4):
            sum(
                twin.loss(model, *batch_of(seed=10 * step + rank)) / 2
                for rank, twin in enumerate(twins)
            ).backward()
            optimizer.step()
            optimizer.zero_grad()
        expected = [p.double().square().sum().item() for p in model.parameters()]
        assert sums == pytest.approx(expected, rel=1e-4, abs=1e-7), name

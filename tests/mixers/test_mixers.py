"""What every method must satisfy, over the registry: a method without a row here fails."""

import copy
import json
import math
import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import catchup
from catchup import MIXERS, CutMix, Draw, InputMixup, count_hooks
from catchup.mixers import make
from catchup.mixers.cutmix import cut_box
from conftest import TinyNet


@dataclass(frozen=True)
class Row:
    """What the tests must know of a method. `waived`: property -> why it cannot hold for this
    method.
    """

    layers: tuple[int, ...] = (0,)  # the layers it can mix in TinyNet
    settings: dict = field(default_factory=dict)  # for the tests, beside the defaults
    waived: dict[str, str] = field(default_factory=dict)


# Properties that may be waived: "mixes", "lam_one" (the identity at λ = 1), "self" (mixing with
# oneself changes nothing), "between" (values between the pair's), "relabel", "gradient" (both
# images get it), "one" (a batch of one is a plain step), "stateless" (the same draw gives the same
# loss later), "soft" (hard and soft labels alike), "plain" (the loss is the criterion of the mixed
# labels alone), "ddp" (two processes equal one with averaged gradients).
ROWS = {
    "baseline": Row(waived={"mixes": "plain training"}),
    "mixup": Row(),
    "cutmix": Row(),
    "catchup": Row(layers=(0, 1, 2, 3)),
    "randomchannel": Row(
        layers=(1, 2, 3), waived={"relabel": "every place in the batch has its own random channels"}
    ),
    "snapmix": Row(
        waived={
            "self": "the patch is resized from another box of the same image",
            "between": "a resized patch brings the partner's pixels to other places",
            "one": (
                "the image gets a resized box of itself, and its label the doubled weight of a pair"
                " of one label"
            ),
        }
    ),
    "guidedmixup": Row(
        settings={"pairing": "random"},
        waived={  # greedy pairs: tests/mixers/test_guidedmixup.py
            "lam_one": "λ is not used: the ratio of the saliency maps decides"
        },
    ),
    "automix": Row(
        settings={"block": "layer1"},
        waived={  # TinyNet has no third stage
            "one": "the clean image's loss and the Mix Block's are added",
            "stateless": (
                "the momentum encoder takes a step with every loss, so the mask is another one"
                " later"
            ),
            "plain": "the clean images' loss and the Mix Block's are added",
        },
    ),
    "fmix": Row(),
    "resizemix": Row(
        waived={
            "self": "its own small image is pasted into each",
            "between": "the resized partner's pixels come to other places",
            "relabel": "every place in the batch has its own box",
            "one": "the image gets its own small image pasted in",
        }
    ),
    "saliencymix": Row(),
    "recursivemix": Row(
        waived={  # with a history: tests/mixers/test_recursivemix.py
            "self": "what is pasted in is the batch of the step before",
            "between": "what is pasted in is the batch of the step before",
            "relabel": "the history has places of its own, which are not relabelled",
            "gradient": "the other image is of the step before and has no gradient",
            "one": "the image gets the one of the step before pasted in",
            "stateless": "the history is another one later",
            "plain": "the consistency loss is added",
        }
    ),
    "puzzlemix": Row(waived={"between": "the transport brings pixels to other places"}),
    "manifoldmixup": Row(layers=(0, 2, 3)),
    "moex": Row(
        layers=(1,),
        settings={"prob": 1.0},
        waived={
            "lam_one": "the moments are exchanged whole at every λ, which weights the labels only",
            "between": "features in other moments may leave the range of both images",
        },
    ),
    "alignmixup": Row(
        layers=(0, 3),
        waived={
            "lam_one": (
                "at the partner's places an image's own maps stand rearranged (held for both coins"
                " in its own test)"
            ),
            "between": "the aligned map has at each place the partner's values of other places",
        },
    ),
    "comixup": Row(
        waived={
            "lam_one": "λ is not used: the masks decide how much of each image is shown",
            "self": "the partner only says which images are mixed together",
            "between": "a mixed image has blocks of several others",
            "relabel": "every place in a part has its own random start",
            "gradient": "a mixed image has blocks of several others",
            "one": "the clean image's loss is added",
            "plain": "the clean images' loss is added",
        }
    ),
}
PROPERTIES = {
    "mixes",
    "lam_one",
    "self",
    "between",
    "relabel",
    "gradient",
    "one",
    "stateless",
    "soft",
    "plain",
    "ddp",
}


def holding(*properties: str) -> list[str]:
    """The methods for which none of these properties is waived."""
    return [name for name, row in ROWS.items() if not set(properties) & set(row.waived)]


def cases(*properties: str) -> list[tuple[str, int]]:
    return [(name, layer) for name in holding(*properties) for layer in ROWS[name].layers]


def begun(name: str, model=None, seed: int | None = 0, groups: bool = False, **settings):
    """The method as training makes it: settings of the row, run begun on the model (by default a
    new TinyNet).

    With `groups` also the optimiser groups of its own parameters.
    """
    mixer = make(name, seed=seed, **{**ROWS[name].settings, **settings})
    if model is None:
        torch.manual_seed(0)
        model = TinyNet()
    own = mixer.begin_run(model, 5)
    return (mixer, own) if groups else mixer


def mixed(name: str, maps: torch.Tensor, draw: Draw, mixer=None):
    """`mix` of these maps, after the look-ups that an input method makes."""
    torch.manual_seed(0)
    model = TinyNet(channels=maps.shape[1] if draw.layer == 0 else 3).to(maps.dtype)
    mixer = begun(name, model) if mixer is None else mixer
    if draw.layer == 0:
        draw = mixer.plan(model, maps, torch.arange(len(maps)) % 5, draw)
    return mixer.mix(maps, draw)


def maps_at(layer: int) -> torch.Tensor:
    return torch.randn(
        5, 3 if layer == 0 else 6, 8, 8, generator=torch.Generator().manual_seed(layer)
    )


def test_every_method_has_a_row():
    assert set(ROWS) == set(MIXERS)
    assert all(set(row.waived) <= PROPERTIES and all(row.waived.values()) for row in ROWS.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
def test_layers_of_the_row_are_those_it_draws(name, tiny, batch):
    mixer, row = begun(name, tiny, **({} if name == "baseline" else {"prob": 1.0})), ROWS[name]
    drawn = set()
    for _ in range(60 if len(row.layers) > 1 else 10):
        mixer.loss(tiny, *batch)
        drawn.add(mixer.last.draw.layer)
    assert drawn == ({None} if name == "baseline" else set(row.layers))


@pytest.mark.parametrize(("name", "layer"), cases("lam_one"))
def test_lambda_one_is_the_identity(name, layer):
    maps = maps_at(layer)
    result = mixed(name, maps, Draw(layer, [1, 2, 3, 4, 0], 1.0, seed=7))
    torch.testing.assert_close(result.maps, maps)
    assert (torch.as_tensor(result.own_weight) == 1).all()


@pytest.mark.parametrize(("name", "layer"), cases("self"))
def test_mixing_an_image_with_itself_changes_nothing(name, layer):
    maps = maps_at(layer)
    torch.testing.assert_close(mixed(name, maps, Draw(layer, range(5), 0.37, seed=7)).maps, maps)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer"), cases())
def test_values_lie_between_the_pairs_and_shares_in_0_1(name, layer):
    maps, rng = maps_at(layer), np.random.default_rng(0)
    for _ in range(20):
        draw = Draw(layer, rng.permutation(5), rng.random(), seed=int(rng.integers(99)))
        result, share = mixed(name, maps, draw), None
        for share in (
            result.own_weight,
            1 - torch.as_tensor(result.own_weight)
            if result.partner_weight is None
            else result.partner_weight,
        ):
            assert (torch.as_tensor(share) >= 0).all() and (torch.as_tensor(share) <= 1).all()
        if "between" in ROWS[name].waived:
            continue
        other = maps[draw.partner]
        assert (result.maps >= maps.minimum(other) - 1e-6).all() and (
            result.maps <= maps.maximum(other) + 1e-6
        ).all()
        if result.keep is not None:
            assert torch.equal(result.maps, torch.where(result.keep, maps, other))


@pytest.mark.parametrize(("name", "layer"), cases("relabel"))
def test_relabelling_the_images_relabels_the_result(name, layer):
    maps, order, labels = maps_at(layer), torch.tensor([3, 1, 4, 0, 2]), torch.arange(5)
    partner = torch.tensor([1, 2, 3, 4, 0])
    torch.manual_seed(0)
    model = TinyNet()
    mixer = begun(name, model)

    def result(maps, labels, partner):
        draw = Draw(layer, partner, 0.6, seed=3)
        return mixer.mix(maps, mixer.plan(model, maps, labels, draw) if layer == 0 else draw).maps

    renamed = order.argsort()[partner[order]]
    torch.testing.assert_close(
        result(maps[order], labels[order], renamed), result(maps, labels, partner)[order]
    )


@pytest.mark.parametrize(("name", "layer"), cases())
def test_input_is_untouched_and_the_result_is_new(name, layer):
    maps = maps_at(layer)
    before = maps.clone()
    mixed(name, maps, Draw(layer, [4, 0, 1, 2, 3], 0.5, seed=1))
    assert torch.equal(maps, before)


@pytest.mark.parametrize(("name", "layer"), cases("mixes", "gradient"))
def test_both_images_of_a_pair_get_gradient(name, layer):
    maps = maps_at(layer).requires_grad_()
    mixed(name, maps, Draw(layer, [1, 2, 3, 4, 0], 0.5, seed=2)).maps[0].sum().backward()
    reached = maps.grad.abs().sum(dim=(1, 2, 3)) > 0
    assert reached.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("name", MIXERS)
def test_same_seed_same_draws_other_seed_others(name):
    def lams(seed):
        mixer = make(name, seed=seed)
        return [json.dumps(mixer.draw(6, 3, mixer.rng).as_dict()) for _ in range(8)]

    assert lams(3) == lams(3)
    assert lams(3) != lams(4)


@pytest.mark.parametrize("name", MIXERS)
def test_without_a_seed_torch_manual_seed_governs(name):
    torch.manual_seed(11)
    first = make(name).rng.random(3)
    torch.manual_seed(11)
    assert (make(name).rng.random(3) == first).all()
    torch.manual_seed(12)
    assert (make(name).rng.random(3) != first).any()


@pytest.mark.parametrize("name", MIXERS)
def test_a_draw_can_be_stored_and_replayed(name, tiny, batch):
    mixer = begun(name, tiny)
    mixer.loss(tiny, *batch)
    before = copy.deepcopy(mixer.state_dict())
    loss = mixer.loss(tiny, *batch)
    stored = json.loads(json.dumps(mixer.last.draw.as_dict()))
    mixer.load_state_dict(before)
    assert torch.equal(mixer.loss(tiny, *batch, draw=Draw(**stored)), loss)


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
def test_saved_state_deep_copy_and_pickle_give_the_same_next_step(name, tiny, batch):
    mixer = begun(name, tiny)
    mixer.loss(tiny, *batch)
    state = copy.deepcopy(mixer.state_dict())
    twins = [copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer)), begun(name, tiny, seed=99)]
    twins[2].load_state_dict(state)
    expected = [mixer.loss(tiny, *batch) for _ in range(2)]
    for twin in twins:
        assert torch.equal(twin.loss(tiny, *batch), expected[0])
        assert torch.equal(twin.loss(tiny, *batch), expected[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_any_batch_size_and_one_is_a_plain_step(name, size, tiny):
    images, labels = torch.randn(size, 3, 8, 8), torch.randint(5, (size,))
    mixer = begun(name, tiny)
    for _ in range(6):
        loss = mixer.loss(tiny, images, labels)
        assert loss.shape == () and loss.isfinite()
        if size == 1 and "one" not in ROWS[name].waived:
            torch.testing.assert_close(loss, F.cross_entropy(tiny(images), labels))


@pytest.mark.slow
@pytest.mark.parametrize("name", holding("soft"))
def test_hard_and_soft_labels_give_the_same_loss(name, tiny, batch):
    images, labels = batch
    hard, soft = begun(name, tiny), begun(name, tiny)
    for _ in range(8):
        torch.testing.assert_close(
            hard.loss(tiny, images, labels), soft.loss(tiny, images, F.one_hot(labels, 5).float())
        )


@pytest.mark.parametrize("name", MIXERS)
def test_any_integer_labels_will_do(name, tiny, batch):
    images, labels = batch
    expected = begun(name, tiny).loss(tiny, images, labels)
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(begun(name, tiny).loss(tiny, images, labels.to(dtype)), expected)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_keep_their_type(name, dtype):
    for layer in ROWS[name].layers:
        result = mixed(name, maps_at(layer).to(dtype), Draw(layer, [1, 2, 3, 4, 0], 0.5)).maps
        assert result.dtype == dtype and result.isfinite().all()


@pytest.mark.parametrize(("name", "layer"), cases())
def test_channels_last_maps_give_the_same_and_stay_so(name, layer):
    maps, draw = maps_at(layer), Draw(layer, [1, 2, 3, 4, 0], 0.5, seed=2)
    result = mixed(name, maps.contiguous(memory_format=torch.channels_last), draw).maps
    torch.testing.assert_close(result, mixed(name, maps, draw).maps)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", holding("plain"))
@pytest.mark.parametrize("criterion", ["ce", "bce_softmax"])
def test_the_criterion_is_applied_to_the_mixed_labels(name, criterion, tiny, batch):
    mixer = begun(name, tiny, criterion=criterion)
    loss = mixer.loss(tiny, *batch)
    soft = mixer.last.target.soft(5)
    p = mixer.last.logits.softmax(dim=1)
    by_hand = {
        "ce": -(soft * p.log()).sum(dim=1).mean(),
        "bce_softmax": F.binary_cross_entropy(p, soft),
    }[criterion]
    torch.testing.assert_close(loss, by_hand)


def test_a_criterion_of_your_own(tiny, batch):
    mixer = make(
        "cutmix", seed=0, criterion=lambda logits, target: (logits - target.soft(5)).square().mean()
    )
    loss = mixer.loss(tiny, *batch)
    torch.testing.assert_close(
        loss, (mixer.last.logits - mixer.last.target.soft(5)).square().mean()
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", holding("stateless"))
def test_gradients_accumulate_as_the_mean_of_the_replayed_steps(name, batch):
    torch.manual_seed(0)
    model, draws, expected = TinyNet(), [], 0
    mixer = begun(name, model)
    for _ in range(4):
        (mixer.loss(model, *batch) / 4).backward()
        draws.append(mixer.last.draw)
    together = torch.cat([p.grad.flatten() for p in model.parameters()])
    for draw in draws:
        grads = torch.autograd.grad(mixer.loss(model, *batch, draw=draw), list(model.parameters()))
        expected = expected + torch.cat([grad.flatten() for grad in grads]) / 4
    torch.testing.assert_close(together, expected)


@pytest.mark.parametrize("name", MIXERS)
def test_the_batch_size_does_not_move_the_next_draws(name):
    """Processes with batches of different sizes stay in step: same layer, same λ."""
    large, small = begun(name), begun(name)
    for _ in range(20):
        one, other = large.draw(13, 3, large.rng), small.draw(2, 3, small.rng)
        assert (one.layer, one.lam, one.seed) == (other.layer, other.lam, other.seed)


def test_a_method_can_look_things_up_before_it_mixes(tiny, batch):
    """What a saliency method needs: `plan` sees model, images and labels; `mix` and `target` see
    what it found.
    """

    class Brighter(catchup.InputMixup):
        def plan(self, model, images, labels, draw):
            return replace(draw, extra={"mean": images.mean(dim=(1, 2, 3))})

        def mix(self, maps, draw):
            return super().mix(maps, draw)._replace(own_weight=draw.extra["mean"].sigmoid())

    mixer = Brighter(seed=0)
    loss = mixer.loss(tiny, *batch)
    share = batch[0].mean(dim=(1, 2, 3)).sigmoid()
    assert torch.equal(mixer.last.own_weight, share) and count_hooks(tiny) == 0
    torch.testing.assert_close(loss, F.cross_entropy(mixer.last.logits, mixer.last.target.soft(5)))
    assert torch.equal(mixer.loss(tiny, *batch, draw=Draw(**mixer.last.draw.as_dict())), loss)


@pytest.mark.parametrize("name", MIXERS)
def test_trains_under_autocast_and_with_accumulated_gradients(name, batch):
    torch.manual_seed(0)
    model = TinyNet()
    mixer = begun(name, model)
    start = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            loss = mixer.loss(model, *batch) / 4
        assert loss.dtype == torch.float32
        loss.backward()
    optimizer.step()
    assert all((model.state_dict()[key] != start[key]).any() for key in start)
    assert count_hooks(model) == 0


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (
            torch.zeros(4, 3, 8, 8, dtype=torch.uint8),
            torch.zeros(4, dtype=torch.int64),
            "images must be (B, C, H, W)",
        ),
        (torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), "got (4, 3)"),
        (torch.zeros(4, 3, 8, 8), torch.zeros(3, dtype=torch.int64), "labels must be (4,)"),
        (torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.bool), "torch.bool"),
        (
            torch.zeros(4, 3, 8, 8),
            torch.tensor([0, 1, 5, 0]),
            "labels must lie in 0 … 4, got 0 … 5",
        ),
        (torch.zeros(4, 3, 8, 8), torch.tensor([0, -1, 2, 0]), "got -1 … 2"),
        (
            torch.zeros(4, 3, 8, 8),
            torch.eye(6)[:4],
            "soft labels have 6 classes, the model's logits 5",
        ),
        (torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64), "the batch is empty"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(name, images, labels, words, tiny):
    with pytest.raises(ValueError) as error:
        begun(name, tiny).loss(tiny, images, labels)
    assert words in str(error.value)


def test_a_draw_that_does_not_fit_is_refused(tiny, batch):
    mixer = make("catchup", seed=0)
    with pytest.raises(ValueError, match="for 3 images, the batch has 7"):
        mixer.loss(tiny, *batch, draw=Draw(1, [0, 1, 2], 0.5))
    with pytest.raises(ValueError, match="layer must lie in 0 … 3, got 4"):
        mixer.loss(tiny, *batch, draw=Draw(4, range(7), 0.5))


def test_make_names_the_choices_and_the_nearest():
    with pytest.raises(ValueError, match="unknown method 'catchpu'. Did you mean 'catchup'"):
        make("catchpu")
    with pytest.raises(
        ValueError, match="unknown setting of catchup 'aplha'. Did you mean 'alpha'"
    ):
        make("catchup", aplha=1)
    with pytest.raises(ValueError, match="unknown layer 7: this model has 0"):
        make("catchup", layers=(1, 7)).check(TinyNet())
    with pytest.raises(ValueError, match="unknown layer 'layr1'. Did you mean 'layer1'"):
        make("catchup", blocks=("layr1",)).check(TinyNet())


def test_random_channels_are_k_of_each_image_every_one_as_often_and_never_the_input():
    mixer, maps, draw = (
        make("randomchannel", seed=0),
        torch.randn(400, 10, 3, 3),
        Draw(1, range(400), 0.47, seed=5),
    )
    keep = mixer.mix(maps, draw).keep[:, :, 0, 0]
    assert (keep.sum(dim=1) == 4).all() and torch.equal(
        keep, mixer.mix(maps, draw).keep[:, :, 0, 0]
    )
    # four standard errors
    assert (keep.float().mean(dim=0) - 0.4).abs().max() < 4 * (0.4 * 0.6 / 400) ** 0.5
    # of the 210 there are: every image has its own
    assert len({tuple(row.tolist()) for row in keep}) > 50
    with pytest.raises(ValueError, match="not at the input 0, got layers"):
        make("randomchannel", layers=(0, 1))


# -- CutMix and InputMixup against torchvision's, given the same parameters ------------------------


def test_inputmixup_equals_torchvisions():
    from torchvision.transforms.v2 import MixUp

    images, labels = torch.rand(6, 3, 9, 7), torch.arange(6)
    theirs = MixUp(num_classes=6)
    params = {"labels": labels, "batch_size": 6, "lam": 0.3}
    rolled = torch.arange(6).roll(1)  # torchvision pairs each image with its neighbour
    mixer = InputMixup(seed=0)
    draw = Draw(0, rolled, 0.3)
    mixed = mixer.mix(images, draw)
    torch.testing.assert_close(mixed.maps, theirs.transform(images, params))
    torch.testing.assert_close(
        mixer.target(labels, draw, mixed).soft(6), theirs.transform(labels, params)
    )


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_equals_torchvisions(seed):
    from torchvision.transforms.v2 import CutMix as Theirs

    rng = np.random.default_rng(seed)
    images, labels, lam = torch.rand(5, 3, 11, 8), torch.arange(5), float(rng.random())
    top, bottom, left, right = cut_box(11, 8, lam, tuple(np.random.default_rng(seed).random(2)))
    params = {
        "labels": labels,
        "batch_size": 5,
        "box": (left, top, right, bottom),
        "lam_adjusted": 1 - (bottom - top) * (right - left) / 88,
    }
    theirs, mixer, draw = (
        Theirs(num_classes=5),
        CutMix(seed=0),
        Draw(0, torch.arange(5).roll(1), lam, seed=seed),
    )
    mixed = mixer.mix(images, draw)
    assert torch.equal(mixed.maps, theirs.transform(images, params))
    torch.testing.assert_close(
        mixer.target(labels, draw, mixed).soft(5), theirs.transform(labels, params)
    )


def test_cut_box_is_the_papers_and_clipped():
    """r_w = W √(1 − λ), r_h = H √(1 − λ) around the centre, cut off at the border."""
    assert cut_box(32, 32, 0.75, (0.5, 0.5)) == (8, 24, 8, 24)
    assert cut_box(32, 32, 0.75, (0.0, 0.99)) == (0, 8, 23, 32)
    assert cut_box(32, 32, 1.0, (0.3, 0.7))[0] == cut_box(32, 32, 1.0, (0.3, 0.7))[1]
    assert cut_box(32, 32, 0.0, (0.5, 0.5)) == (0, 32, 0, 32)
    for number in range(300):
        rng = np.random.default_rng(number)
        height, width, lam, centre = (
            rng.integers(1, 40),
            rng.integers(1, 40),
            rng.random(),
            rng.random(2),
        )
        top, bottom, left, right = cut_box(height, width, lam, centre)
        assert 0 <= top <= bottom <= height and 0 <= left <= right <= width
        assert (
            bottom - top <= math.sqrt(1 - lam) * height
            and right - left <= math.sqrt(1 - lam) * width
        )

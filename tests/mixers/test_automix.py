"""AutoMix: one step against the same written out by hand, who learns from what, and the momentum
encoder.
"""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup import Draw, Settings, count_hooks, fit, models
from catchup.hooks.layers import map_channels
from catchup.mixers import make
from catchup.mixers.automix import AutoMix, blend
from catchup.mixers.parts.momentum import cosine, follow, frozen_copy
from catchup.mixers.regularisers import Regulariser
from catchup.training.trainer import dataset_of
from conftest import TinyNet


class NormNet(nn.Module):
    """A stem and three stages with batch norm: the third one is the default block."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        for stage in (1, 2, 3):
            self.add_module(
                f"layer{stage}",
                nn.Sequential(
                    nn.Conv2d(4, 6, 3, padding=1, stride=2 if stage == 3 else 1),
                    nn.BatchNorm2d(6),
                    nn.ReLU(inplace=True),
                    nn.Conv2d(6, 4, 1),
                    nn.BatchNorm2d(4),
                ),
            )
        self.fc = nn.Linear(4, 5)

    def forward(self, images):
        return self.fc(
            self.layer3(self.layer2(self.layer1(self.stem(images)))).relu().mean(dim=(2, 3))
        )


@pytest.fixture
def net():
    torch.manual_seed(0)
    return NormNet()


def begun(net, **settings) -> tuple[AutoMix, list[dict]]:
    mixer = AutoMix(seed=0, **settings)
    return mixer, mixer.begin_run(net, 5)


def unlike(mixer, net) -> None:
    """As after some training: k is another network than q, and the Mix Block's masks differ from
    0.5.
    """
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for module in (mixer.modules["momentum"], mixer.modules["mix_block"]):
            for p in module.parameters():
                p.add_(torch.randn(p.shape, generator=generator), alpha=0.3)


def ce(logits, labels, partner=None, lam=1.0):
    loss = lam * F.cross_entropy(logits, labels)
    return loss if partner is None else loss + (1 - lam) * F.cross_entropy(logits, labels[partner])


def masks_by_hand(block, maps, partner, lam, size):
    """Eqs. 4–5 as printed or as released, one pair at a time."""
    masks = []
    for i, j in enumerate(partner.tolist()):

        def z(k, share):
            # (h·w, C + 1)
            return torch.cat([maps[k], torch.full((1, *maps.shape[2:]), share)]).flatten(1).T

        def linear(conv, rows):
            return rows @ conv.weight[:, :, 0, 0].T + conv.bias

        left, right = linear(block.similar, z(i, lam)), linear(block.similar, z(j, 1 - lam))
        p = F.softmax(left @ right.T / left.shape[1] ** 0.5, dim=1)
        values = linear(block.value, z(j, 1 - lam) if block.released else z(i, lam))
        mask = torch.sigmoid(p @ values).reshape(maps.shape[2:])
        mask = 1 - mask if block.released else mask
        masks.append(
            mask.repeat_interleave(size[0] // mask.shape[0], 0).repeat_interleave(
                size[1] // mask.shape[1], 1
            )
        )
    return torch.stack(masks)[:, None]


# -- one step --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lam", "form"), [(0.35, "released"), (0.8, "released"), (0.35, "printed")]
)
def test_a_step_is_algorithm_1_and_each_part_learns_from_its_own_losses(net, batch, lam, form):
    images, labels = batch
    mixer, _ = begun(net, ema_start=1.0, ema_end=1.0, block_form=form)
    unlike(mixer, net)
    q, k, block = (
        copy.deepcopy(net),
        copy.deepcopy(mixer.modules["momentum"]),
        mixer.modules["mix_block"],
    )
    draw = Draw(0, [3, 0, 1, 2, 6, 4, 5], lam, seed=11)
    loss = mixer.loss(net, images, labels, draw=draw)
    loss.backward()

    seen = []
    handle = k.layer3.register_forward_hook(
        lambda _m, _a, output: seen.append(output.detach().clone())
    )
    with torch.no_grad():
        k(images)
    handle.remove()
    q_mask = masks_by_hand(block, seen[0], draw.partner, lam, (8, 8)).detach()
    q_loss = ce(q(q_mask * images + (1 - q_mask) * images[draw.partner]), labels, draw.partner, lam)
    q_loss = q_loss + ce(q(images), labels)
    other = mixer.block_draw(draw)
    k_mask = masks_by_hand(block, seen[0], other.partner, other.lam, (8, 8))
    k_loss = ce(
        k(k_mask * images + (1 - k_mask) * images[other.partner]), labels, other.partner, other.lam
    )
    means = k_mask.mean() if form == "released" else k_mask.mean(dim=(1, 2, 3))
    k_loss = k_loss + 0.1 * ((other.lam - means).abs() - 0.1).clamp(min=0).mean()

    torch.testing.assert_close(loss, q_loss + k_loss)
    for module, part, grads in ((net, q, q_loss), (block, block, k_loss)):
        wanted = torch.autograd.grad(grads, list(part.parameters()))
        assert all(grad.abs().max() > 0 for grad in wanted[-2:])
        for p, grad in zip(module.parameters(), wanted, strict=True):
            torch.testing.assert_close(p.grad, grad, rtol=1e-3, atol=1e-6)
    assert all(
        p.grad is None and not p.requires_grad for p in mixer.modules["momentum"].parameters()
    )
    torch.testing.assert_close(mixer.last.draw.extra["mask"], q_mask)
    # k's two passes moved its running statistics
    for name, value in mixer.modules["momentum"].named_buffers():
        torch.testing.assert_close(value, dict(k.named_buffers())[name])


def test_four_forward_and_three_backward_passes(net, batch):
    mixer, _ = begun(net)
    k, counted = mixer.modules["momentum"], []
    for name, module in (("q", net), ("k", k)):
        module.fc.register_forward_hook(lambda *_, name=name: counted.append(name))
        module.layer3.register_full_backward_hook(
            lambda *_, name=name: counted.append(f"{name} back")
        )
    mixer.loss(net, *batch).backward()
    forward, backward = [c for c in counted if "back" not in c], [c for c in counted if "back" in c]
    assert sorted(forward) == ["k", "k", "q", "q"] and sorted(backward) == [
        "k back",
        "q back",
        "q back",
    ]
    assert (len(forward), len(backward)) == AutoMix.passes


def test_the_mask_is_the_share_of_the_own_image():
    images, partner = torch.randn(3, 2, 4, 4), torch.tensor([1, 2, 0])
    mask = torch.zeros(3, 1, 4, 4)
    mask[:, :, :2] = 1
    mixed = blend(images, partner, mask)
    assert torch.equal(mixed[:, :, :2], images[:, :, :2]) and torch.equal(
        mixed[:, :, 2:], images[partner][:, :, 2:]
    )
    torch.testing.assert_close(
        blend(images, partner, torch.full((3, 1, 4, 4), 0.3)), 0.3 * images + 0.7 * images[partner]
    )


def test_what_a_step_leaves_is_the_mask_alone(net, batch):
    mixer, _ = begun(net)
    mixer.loss(net, *batch).backward()
    assert set(mixer.last.draw.extra) == {"mask"} and mixer.last.own_weight == mixer.last.draw.lam
    mask = mixer.last.draw.extra["mask"]
    assert mask.shape == (7, 1, 8, 8) and not mask.requires_grad and ((mask > 0) & (mask < 1)).all()
    assert count_hooks(net) == count_hooks(mixer.modules["momentum"]) == 0
    for twin in (copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
        assert torch.equal(twin.last.draw.extra["mask"], mask)


def test_mix_takes_the_mask_as_a_number(net):
    """The encoder's loss teaches no block, whatever mask the draw brings."""
    mixer, _ = begun(net)
    images, mask = torch.randn(2, 3, 8, 8), torch.rand(2, 1, 8, 8, requires_grad=True)
    mixed = mixer.mix(images, Draw(0, [1, 0], 0.5, extra={"mask": mask}))
    assert not mixed.maps.requires_grad and torch.equal(
        mixed.maps, blend(images, torch.tensor([1, 0]), mask)
    )


def test_mix_without_a_mask_is_refused(net):
    mixer, _ = begun(net)
    with pytest.raises(ValueError, match="a draw without one: complete it by plan"):
        mixer.mix(torch.zeros(2, 3, 8, 8), Draw(0, [1, 0], 0.5))


@pytest.mark.slow
def test_the_blocks_images_have_partners_and_a_ratio_of_their_own():
    mixer, draws = AutoMix(seed=0, alpha=2.0), []
    for seed in range(2000):
        draws.append(mixer.block_draw(Draw(0, range(4), 0.5, seed=seed)))
    again = mixer.block_draw(Draw(0, [3, 2, 1, 0], 0.9, seed=5))
    assert again.lam == draws[5].lam and torch.equal(again.partner, draws[5].partner)
    lams = np.array([draw.lam for draw in draws])
    # Beta(2, 2) has variance 1/20
    assert lams.mean() == pytest.approx(0.5, abs=4 * (1 / 20 / 2000) ** 0.5)
    assert lams.var() == pytest.approx(1 / 20, abs=0.005)
    assert len({tuple(draw.partner.tolist()) for draw in draws}) == 24  # every permutation of four


def test_a_step_that_does_not_mix_is_a_plain_one(net, batch):
    mixer, groups = begun(net, prob=0.0)
    loss = mixer.loss(net, *batch)
    torch.testing.assert_close(loss, F.cross_entropy(mixer.last.logits, batch[1]))
    loss.backward()
    assert all(p.grad is None for p in groups[0]["params"])


def test_near_the_ends_the_classifier_is_given_inputmixup(net, batch):
    mixer, _ = begun(net, lam_margin=0.08)
    for lam, plain in ((0.08, True), (0.93, True), (0.0, True), (0.09, False), (0.9, False)):
        mixer.loss(net, *batch, draw=Draw(0, [1, 2, 3, 4, 5, 6, 0], lam)).backward()
        assert (mixer.last.draw.extra["mask"] == lam).all().item() is plain
    mixer, _ = begun(net)
    mixer.loss(net, *batch, draw=Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.001))
    assert not (mixer.last.draw.extra["mask"] == 0.001).any()


def test_label_changes_of_regularisers_apply_to_all_three_label_losses(net, batch):
    class Smooth(Regulariser):
        def target(self, target, num_classes):
            return target.smooth(1.0, num_classes)  # nothing of the labels is left

    images, labels = batch
    losses = []
    for other in (labels, (labels + 1) % 5):
        mixer, _ = begun(net, regularisers=(Smooth(),))
        losses.append(
            mixer.loss(net, images, other, draw=Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.4, seed=3))
        )
    torch.testing.assert_close(losses[0], losses[1])


def test_the_criterion_is_that_of_all_three_label_losses(net, batch):
    """A criterion of zeros leaves the mask loss."""
    mixer, _ = begun(net, criterion=lambda logits, target: 0 * logits.sum(), mask_margin=0.0)
    draw = Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.4, seed=3)
    loss, lam = mixer.loss(net, *batch, draw=draw), mixer.block_draw(draw).lam
    with torch.no_grad():
        mask = mixer.plan(net, *batch, mixer.block_draw(draw)).extra["mask"]
    torch.testing.assert_close(loss, 0.1 * (lam - mask.mean()).abs())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_that_are_no_numbers_make_it_inputmixup(net, batch, bad):
    """As where a layer overflows in half precision: k's maps of image 2 break, so pairs with it are
    blended evenly.
    """
    mixer, groups = begun(net)
    k, broken = (
        mixer.modules["momentum"],
        [torch.zeros(7, 1, 1, 1).index_fill_(0, torch.tensor(2), bad)],
    )
    handle = k.layer3.register_forward_hook(
        lambda _m, _a, output: output + broken.pop() if broken else output
    )
    loss = mixer.loss(net, *batch, draw=Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.4, seed=3))
    handle.remove()
    mask = mixer.last.draw.extra["mask"]
    assert (mask.flatten(1) == 0.4).all(dim=1).tolist() == [
        False,
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    loss.backward()
    assert not broken and loss.isfinite() and mask.isfinite().all()
    assert all(p.grad.isfinite().all() for p in (*net.parameters(), *groups[0]["params"]))


def test_bfloat16_autocast_makes_masks_in_float32(net, batch):
    mixer, groups = begun(net)
    with torch.autocast("cpu", torch.bfloat16):
        loss = mixer.loss(net, *batch)
    loss.backward()
    assert loss.dtype == mixer.last.draw.extra["mask"].dtype == torch.float32
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in groups[0]["params"][:2])


def test_k_computes_in_the_precision_of_the_run(net, batch):
    mixer, groups = begun(net)
    mixer.begin_precision(torch.bfloat16)
    seen = []
    handle = mixer.modules["momentum"].layer3.register_forward_hook(
        lambda _m, _a, output: seen.append(output.dtype)
    )
    loss = mixer.loss(net, *batch)
    handle.remove()
    loss.backward()
    assert seen == [torch.bfloat16] * 2
    assert loss.dtype == mixer.last.draw.extra["mask"].dtype == torch.float32
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in groups[0]["params"][:2])


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", None)])
def test_training_tells_the_method_its_precision(precision, dtype):
    settings = Settings(subset=2, epochs=1, batch_size=10, precision=precision, device="cpu")
    mixer = make("baseline", seed=0)
    fit(TinyNet(10, 1), mixer, dataset_of(settings), settings, progress=False)
    assert mixer.memory.autocast == dtype


# -- the momentum encoder --------------------------------------------------------------------------


def test_k_follows_what_the_optimiser_left_buffers_too(net, batch):
    mixer, groups = begun(net, ema_start=0.9)
    optimizer = torch.optim.SGD([{"params": list(net.parameters())}, *groups], lr=0.5)
    k = mixer.modules["momentum"]
    for _ in range(3):
        before, now = copy.deepcopy(k.state_dict()), copy.deepcopy(net.state_dict())
        average = mixer.modules["momentum"].train()
        # no pass of k, whose statistics would move
        loss = mixer.loss(net, *batch, draw=Draw(None, range(7), 1.0))
        for name, value in average.state_dict().items():
            wanted = now[name] if "num_batches" in name else 0.9 * before[name] + 0.1 * now[name]
            torch.testing.assert_close(value, wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.equal(k.fc.weight, net.fc.weight)


def test_at_the_start_k_is_the_model_and_in_evaluation_mode_it_stays_as_it_is(net, batch):
    mixer, _ = begun(net)
    k = mixer.modules["momentum"]
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in k.state_dict().items())
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    before, theirs = copy.deepcopy(k.state_dict()), copy.deepcopy(net.state_dict())
    mixer.loss(net.eval(), *batch)
    assert all(torch.equal(value, before[name]) for name, value in k.state_dict().items())
    assert all(torch.equal(value, theirs[name]) for name, value in net.state_dict().items())
    mixer.loss(net.train(), *batch)
    assert not torch.equal(k.fc.weight, before["fc.weight"])


def test_looking_things_up_leaves_the_models_running_statistics_alone(net, batch):
    mixer, _ = begun(net)
    before = copy.deepcopy(net.state_dict())
    mixer.plan(net, *batch, Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.4))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    mixer.loss(net, *batch)
    assert net.stem[1].num_batches_tracked == 2  # its mixed and its clean pass


def test_modules_of_k_are_in_the_mode_of_their_originals(net, batch):
    mixer, _ = begun(net)
    k = mixer.modules["momentum"]
    net.layer1[1].eval()  # a frozen batch norm
    mixer.loss(net, *batch)
    assert not k.layer1[1].training and k.layer1[4].training and k.training
    assert k.layer1[1].num_batches_tracked == 0 and k.layer1[4].num_batches_tracked == 2


def test_both_schedules_move_once_an_epoch_and_are_stored(net, batch):
    mixer, _ = begun(net)
    assert (mixer.momentum, mixer.gamma) == (pytest.approx(0.999), 0.1)
    seen = []
    for epoch in range(4):
        mixer.begin_epoch(epoch, 4)
        seen.append((mixer.momentum, mixer.gamma))
    end = 0.999999
    assert [gamma for _, gamma in seen] == pytest.approx([0.1, 0.075, 0.05, 0.025])
    assert [1 - m for m, _ in seen] == pytest.approx(
        [1 - end + (end - 0.999) * (math.cos(math.pi * t / 4) + 1) / 2 for t in range(4)]
    )
    assert cosine(0.999, end, 1.0) == end
    twin, _ = begun(net)
    twin.load_state_dict(copy.deepcopy(mixer.state_dict()))
    assert (twin.momentum, twin.gamma) == (mixer.momentum, mixer.gamma) == seen[-1]
    constant, _ = begun(net, mask_decay=False)
    constant.begin_epoch(3, 4)
    assert constant.gamma == 0.1
    mixer.begin_run(net, 5)
    assert mixer.gamma == 0.1


def test_the_mask_losss_weight_is_gamma(net, batch):
    """Of two losses of the same step at different γ, the difference is the mask loss."""
    draw, losses = Draw(0, [1, 2, 3, 4, 5, 6, 0], 0.4, seed=3), {}
    for weight in (0.0, 1.0):
        mixer, _ = begun(net, mask_weight=weight, mask_margin=0.0)
        losses[weight] = mixer.loss(net, *batch, draw=draw)
    other = mixer.block_draw(draw)
    mixer, _ = begun(net)
    mask = mixer.plan(net, *batch, other).extra["mask"]
    expected = (other.lam - mask.mean()).abs()
    torch.testing.assert_close(losses[1.0] - losses[0.0], expected, rtol=1e-3, atol=1e-5)


def test_hooks_of_the_model_are_not_copied_spectral_norm_is(tiny):
    torch.nn.utils.spectral_norm(tiny.layer1[0])
    calls = []
    tiny.register_forward_pre_hook(lambda *_: calls.append("before"))
    tiny.stem.register_forward_hook(lambda *_: calls.append("stem"))
    tiny.fc.register_full_backward_hook(lambda *_: calls.append("back"))
    k = frozen_copy(tiny).eval()
    images = torch.randn(2, 3, 8, 8)
    out = k(images)
    assert calls == [] and count_hooks(tiny) == 4 and count_hooks(k) == 1
    torch.testing.assert_close(out, tiny.eval()(images).detach())
    with torch.no_grad():
        k.layer1[0].weight_orig.mul_(0)
    assert not torch.equal(k(images), out)  # its weight is still computed from `weight_orig`


def test_an_average_of_another_model_is_refused(net, tiny, batch):
    mixer, _ = begun(net)
    with pytest.raises(ValueError, match="copied from another model than this TinyNet"):
        mixer.loss(tiny, *batch)
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\], got 1.5"):
        follow(mixer.modules["momentum"], net, 1.5)


# -- a run -----------------------------------------------------------------------------------------


def test_the_group_for_the_optimiser_is_the_mix_blocks(net):
    mixer, groups = begun(net, block_lr=0.2)
    (group,) = groups
    assert (group["lr"], group["min_lr"]) == (0.2, 1e-3)
    assert [id(p) for p in group["params"]] == [
        id(p) for p in mixer.modules["mix_block"].parameters()
    ]
    assert mixer.modules["mix_block"].similar.weight.shape == (4, 5, 1, 1)
    assert begun(net, reduction=2)[0].modules["mix_block"].similar.weight.shape == (2, 5, 1, 1)


def test_the_mix_block_follows_from_the_mixers_seed_and_the_global_generator_is_left_alone(net):
    def weights(seed, used=False):
        mixer = AutoMix(seed=seed)
        if used:
            mixer.rng.random(5)
        mixer.begin_run(net, 5)
        return mixer.modules["mix_block"].similar.weight

    torch.manual_seed(5)
    state, training = torch.get_rng_state(), copy.deepcopy(net.state_dict())
    assert torch.equal(weights(1), weights(1, used=True)) and not torch.equal(
        weights(1), weights(2)
    )
    assert torch.equal(torch.get_rng_state(), state) and net.training
    assert all(torch.equal(value, training[name]) for name, value in net.state_dict().items())
    torch.manual_seed(6)
    assert not torch.equal(weights(None), weights(1))


@pytest.mark.slow
def test_a_three_line_loop_trains_model_and_mix_block():
    """Bright squares on the left or dark ones on the right: the masks learn to keep to λ, the model
    to tell them.
    """
    torch.manual_seed(1)
    model, labels, generator = NormNet(), torch.arange(16) % 2, torch.Generator().manual_seed(0)
    mixer = AutoMix(seed=1, mask_margin=0.0, mask_weight=3.0)
    optimizer = torch.optim.SGD(
        [{"params": list(model.parameters())}, *mixer.begin_run(model, 5)], lr=0.1, momentum=0.9
    )
    images = 0.1 * torch.randn(16, 3, 8, 8, generator=generator)
    images[labels == 0, :, 2:6, :3] += 2
    images[labels == 1, :, 2:6, 5:] -= 2

    def off() -> float:
        """Mean distance of the masks' means from λ."""
        draws = [Draw(0, torch.arange(16).roll(1), lam) for lam in (0.1, 0.3, 0.5, 0.7, 0.9)]
        masks = [mixer.plan(model, images, labels, draw).extra["mask"].mean() for draw in draws]
        return np.mean([abs(mask.item() - draw.lam) for mask, draw in zip(masks, draws)])

    before, first = off(), F.cross_entropy(model(images), labels).item()
    for _ in range(60):
        mixer.loss(model, images, labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert off() < 0.5 * before and F.cross_entropy(model(images), labels).item() < 0.1 * first


def test_a_loss_before_begin_run_says_what_to_call(net, batch):
    with pytest.raises(ValueError, match=r"call groups = mixer.begin_run\(model, num_classes\)"):
        AutoMix(seed=0).loss(net, *batch)
    with pytest.raises(ValueError, match="begin_run"):
        AutoMix(seed=0).plan(net, *batch, Draw(0, range(7), 0.5))


def test_the_default_block_is_the_third_stage(net, tiny):
    for model, wanted in ((net, 4), (models.create("resnet18", num_classes=5, width=4), 16)):
        mixer, _ = begun(model)
        mixer.check(model)
        assert mixer.modules["mix_block"].similar.weight.shape == (wanted, wanted + 1, 1, 1)
    resnet = models.create("resnet18", num_classes=5, width=4)
    assert map_channels(resnet, "layer3") == 16 and map_channels(resnet, "layer3.0.conv1") == 16
    for call in (AutoMix(seed=0).check, lambda model: AutoMix(seed=0).begin_run(model, 5)):
        with pytest.raises(
            ValueError, match=r"TinyNet has only the blocks stem, layer1, layer2: name one"
        ):
            call(tiny)
    with pytest.raises(ValueError, match="unknown layer 'layr1'. Did you mean 'layer1'"):
        AutoMix(seed=0, block="layr1").check(tiny)


def test_blocks_without_maps_are_refused(net):
    with pytest.raises(
        ValueError, match=r"block 'fc' must return maps \(B, C, h, w\), got \(2, 5\)"
    ):
        begun(net, block="fc")
    with pytest.raises(ValueError, match="Linear has no 2-D convolution"):
        map_channels(nn.Linear(3, 3), "")
    net.unused = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="got NoneType for two images"):
        begun(net, block="unused")
    assert count_hooks(net) == 0


def test_a_block_that_runs_twice_is_refused(tiny, batch):
    class Twice(TinyNet):
        def forward(self, images):
            return self.fc(
                self.layer2(self.layer1(self.layer1(self.stem(images)))).mean(dim=(2, 3))
            )

    model = Twice()
    mixer, _ = begun(model, block="layer1")
    with pytest.raises(RuntimeError, match="block 'layer1' ran 2 times"):
        mixer.loss(model, *batch)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("reduction", 0, "reduction must be an integer of at least 1, got 0"),
        ("mask_weight", -0.1, "mask_weight must be finite and at least 0, got -0.1"),
        ("mask_margin", math.nan, "mask_margin must be finite and at least 0, got nan"),
        ("lam_margin", 0.6, "lam_margin must be in [0, 0.5], got 0.6"),
        ("ema_start", 1.1, "ema_start must be in [0, 1], got 1.1"),
        ("ema_end", -1.0, "ema_end must be in [0, 1], got -1.0"),
        ("block_lr", 0.0, "block_lr must be a positive number, got 0.0"),
        ("block_min_lr", 0.2, "block_min_lr must be in [0, 0.1], got 0.2"),
        ("alpha", 0.0, "alpha must be a positive number, got 0.0"),
    ],
)
def test_bad_settings_are_refused(setting, value, words):
    with pytest.raises(ValueError) as error:
        AutoMix(seed=0, **{setting: value})
    assert words in str(error.value)

"""Saliency against plain autograd, Grad-CAM against its formula, and a model left as it was."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup import count_hooks, models
from catchup.inspection.attribution import grad_cam, saliency


def with_norm_and_dropout():
    """Modes matter here, and the block is followed by an activation that works in place."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def slow_cam(model, images, labels, block):
    """Eqs. 1 and 2 of Grad-CAM, one image at a time, through a copy of the maps put in the block's
    place.
    """
    model.eval()
    found = []
    for image, label in zip(images, labels):
        kept = []

        def leave(_module, _args, output, kept=kept):
            kept.append(output.detach().clone().requires_grad_())
            return kept[0] * 1  # what follows may work in place

        with model.get_submodule(block).register_forward_hook(leave):
            model(image[None])[0, label].backward()
        maps, slope = kept[0][0].detach(), kept[0].grad[0]
        cam = sum(slope[c].mean() * maps[c] for c in range(len(maps))).relu()
        found.append(F.interpolate(cam[None, None], images.shape[2:], mode="bilinear")[0, 0])
    model.zero_grad(set_to_none=True)
    return torch.stack(found)


def test_saliency_is_the_largest_gradient_over_the_colours(batch):
    images, labels = batch
    model = with_norm_and_dropout()
    found = saliency(model, images, labels)
    model.eval()
    for k in range(len(images)):
        image = images[k : k + 1].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(image)[0, labels[k]], image)
        torch.testing.assert_close(found[k], slope[0].abs().amax(dim=0))
    assert (
        found.shape == (7, 8, 8)
        and (found >= 0).all()
        and found.max() > 0
        and not found.requires_grad
    )


@pytest.mark.parametrize("block", ["stem", "layer1", "layer2", "layer2.1"])
def test_grad_cam_is_its_formula(tiny, batch, block):
    found = grad_cam(tiny, *batch, block)
    torch.testing.assert_close(found, slow_cam(tiny, *batch, block), rtol=1e-4, atol=1e-7)
    assert (
        found.shape == (7, 8, 8)
        and (found >= 0).all()
        and found.max() > 0
        and not found.requires_grad
    )


@pytest.mark.parametrize("block", ["0", "1", "2"])
def test_grad_cam_of_a_block_whose_output_is_changed_in_place(batch, block):
    model = with_norm_and_dropout()
    with torch.no_grad():
        model(batch[0])  # statistics that are not the initial ones
    found = grad_cam(model, *batch, block)
    torch.testing.assert_close(found, slow_cam(model, *batch, block), rtol=1e-4, atol=1e-7)
    assert found.max() > 0


@pytest.mark.parametrize("attribute", [saliency, lambda *given: grad_cam(*given, "1")])
def test_modes_weights_gradients_hooks_and_images_stay_as_they_were(batch, attribute):
    images, labels = batch
    model = with_norm_and_dropout().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model(images).sum().backward()
    modes = [part.training for part in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    asked, chance = [p.requires_grad for p in model.parameters()], torch.get_rng_state()
    with torch.no_grad():
        attribute(model, images, labels)
    assert [part.training for part in model.modules()] == modes and count_hooks(model) == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(
        new.grad is old or torch.equal(new.grad, old) for new, old in zip(model.parameters(), grads)
    )
    assert [p.requires_grad for p in model.parameters()] == asked and torch.equal(
        torch.get_rng_state(), chance
    )
    assert images.grad is None and not images.requires_grad


def test_a_wrapped_and_a_real_model_work(batch):
    model = models.create("resnet18", num_classes=5, width=4)
    plain = grad_cam(model, *batch, "layer2")
    assert plain.shape == (7, 8, 8)
    torch.testing.assert_close(grad_cam(nn.DataParallel(model), *batch, "layer2"), plain)


def test_bad_input_is_refused_and_nothing_is_left(tiny, batch):
    images, labels = batch
    cases = [
        (images[0], labels, "(B, C, H, W)"),
        (images.byte(), labels, "uint8"),
        (images, labels[:3], "got torch"),
        (images, labels.float(), "float32"),
        (images, labels + 3, r"\[0, 4\]"),
        (images, labels - 9, r"\[0, 4\]"),
    ]
    for given, wanted, sentence in cases:
        for attribute in (saliency, lambda *args: grad_cam(*args, "layer1")):
            with pytest.raises(
                ValueError, match=sentence.replace("(B", r"\(B").replace("W)", r"W\)")
            ):
                attribute(tiny, given, wanted)
    with pytest.raises(ValueError, match="Did you mean 'layer1'"):
        grad_cam(tiny, images, labels, "layr1")
    with pytest.raises(ValueError, match="must return maps"):
        grad_cam(tiny, images, labels, "fc")
    assert count_hooks(tiny) == 0 and tiny.training


def test_without_captum_the_message_names_the_extra(tiny, batch, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden("captum"), *sys.meta_path])
    with pytest.raises(ImportError, match=r"captum: from a clone, pip install -e '.\[notebooks\]'"):
        saliency(tiny, *batch)


class Hidden:
    """A finder for which one package is not installed."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {self.package!r}", name=self.package)

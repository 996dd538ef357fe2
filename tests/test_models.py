"""Models: parameter counts against published ones and a closed formula, map sizes, `create` and its errors."""

import sys

import pytest
import torch
from torch import nn

from catchup import models


def n_parameters(model):
    return sum(weights.numel() for weights in model.parameters())


def on_meta(name, **settings):
    with torch.device("meta"):
        return models.create(name, **settings)


def preact_count(width, in_channels, num_classes, final_norm):
    """PreActResNet-18 written out on paper: 3x3 convolutions, BatchNorm before each, 1x1 shortcuts, linear layer."""
    count = 9 * in_channels * width
    inputs = width
    for outputs in (width, 2 * width, 4 * width, 8 * width):
        count += 9 * inputs * outputs + 3 * 9 * outputs**2           # four 3x3 convolutions
        count += 2 * inputs + 3 * 2 * outputs                        # the BatchNorm before each of them
        count += inputs * outputs if inputs != outputs else 0        # 1x1 shortcut of the first block
        inputs = outputs
    return count + (2 * inputs if final_norm else 0) + inputs * num_classes + num_classes


@pytest.mark.parametrize(("num_classes", "published"), [(100, 11_220_132), (10, 11_173_962)])
def test_resnet18_has_the_published_number_of_parameters(num_classes, published):
    assert n_parameters(on_meta("resnet18", num_classes=num_classes)) == published


def test_preact_resnet18_has_the_well_known_number_of_parameters():
    assert n_parameters(on_meta("preact_resnet18", num_classes=10)) == 11_171_146


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize(("width", "in_channels", "num_classes"), [(64, 3, 10), (64, 3, 200), (16, 1, 10), (5, 4, 3)])
def test_preact_resnet18_count_follows_the_formula(width, in_channels, num_classes, final_norm):
    settings = {"width": width, "in_channels": in_channels, "num_classes": num_classes, "final_norm": final_norm}
    counted = n_parameters(on_meta("preact_resnet18", **settings))
    assert counted == preact_count(**settings)


def test_bottleneck_blocks_fit_by_their_expansion():
    class Wide(models.BasicBlock):
        expansion = 4

        def __init__(self, inputs, width, stride):
            super().__init__(inputs, 4 * width, stride)

    model = models.ResNet(Wide, (1, 1, 1, 1), num_classes=3, width=2)
    assert model.fc.in_features == 4 * 8 * 2
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("name", models.names())
@pytest.mark.parametrize(("stem_stride", "sizes"), [(1, [32, 32, 16, 8, 4]), (2, [16, 16, 8, 4, 2])])
def test_maps_have_the_sizes_and_channels_of_the_cifar_protocol(name, stem_stride, sizes):
    model, shapes = models.create(name, num_classes=10, width=4, stem_stride=stem_stride), []
    for child in (model.stem, model.layer1, model.layer2, model.layer3, model.layer4):
        child.register_forward_hook(lambda _module, _args, maps: shapes.append(tuple(maps.shape[1:])))
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert shapes == [(channels, size, size) for channels, size in zip([4, 4, 8, 16, 32], sizes, strict=True)]


@pytest.mark.parametrize("name", models.names())
def test_one_channel_digits_of_eight_pixels_fit(name):
    assert models.create(name, num_classes=7, in_channels=1, width=8)(torch.rand(3, 1, 8, 8)).shape == (3, 7)


@pytest.mark.parametrize(("name", "options", "children"), [
    ("resnet18", {}, ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]),
    ("preact_resnet18", {}, ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]),
    ("preact_resnet18", {"final_norm": True}, ["stem", "layer1", "layer2", "layer3", "layer4", "norm", "fc"]),
])
def test_children_carry_the_documented_names(name, options, children):
    model = on_meta(name, num_classes=10, **options)
    assert [child for child, _ in model.named_children()] == children


def test_final_norm_leaves_no_negative_feature_before_the_pooling():
    for final_norm in (False, True):
        torch.manual_seed(0)
        model, pooled = models.create("preact_resnet18", num_classes=10, width=8, final_norm=final_norm), []
        model.fc.register_forward_pre_hook(lambda _module, args, pooled=pooled: pooled.append(args[0]))
        model(torch.randn(4, 3, 16, 16))
        assert (pooled[0].min() >= 0).item() is final_norm


@pytest.mark.parametrize("name", models.names())
def test_stem_of_preact_is_a_bare_convolution_and_that_of_resnet_ends_in_relu(name):
    stem = models.create(name, num_classes=2, width=8).stem
    parts = [type(part) for part in stem.modules() if not isinstance(part, nn.Sequential)]
    assert parts == ([nn.Conv2d] if name == "preact_resnet18" else [nn.Conv2d, nn.BatchNorm2d, nn.ReLU])


def test_convolutions_start_he_normal_with_fan_out():
    torch.manual_seed(0)
    for name in models.names():
        for conv in (part for part in models.create(name, num_classes=2).modules() if isinstance(part, nn.Conv2d)):
            expected = (2 / (conv.out_channels * conv.kernel_size[0] ** 2)) ** 0.5
            assert conv.weight.std().item() == pytest.approx(expected, rel=0.06)


def test_preact_and_plain_resnet_agree_with_a_forward_written_out_in_functions():
    torch.manual_seed(0)
    image = torch.randn(2, 3, 8, 8)
    f, bn = nn.functional, lambda maps, norm: f.batch_norm(
        maps, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    plain, pre = models.BasicBlock(3, 6, 2).eval(), models.PreActBlock(3, 6, 2).eval()
    inner = f.relu(bn(f.conv2d(image, plain.conv1.weight, None, 2, 1), plain.bn1))
    inner = f.conv2d(inner, plain.conv2.weight, None, 1, 1)
    side = bn(f.conv2d(image, plain.shortcut[0].weight, None, 2), plain.shortcut[1])
    torch.testing.assert_close(plain(image), f.relu(bn(inner, plain.bn2) + side))
    active = f.relu(bn(image, pre.bn1))
    inner = f.relu(bn(f.conv2d(active, pre.conv1.weight, None, 2, 1), pre.bn2))
    side = f.conv2d(active, pre.shortcut.weight, None, 2)
    torch.testing.assert_close(pre(image), f.conv2d(inner, pre.conv2.weight, None, 1, 1) + side)
    same = models.PreActBlock(3, 3, 1)
    nn.init.zeros_(same.conv2.weight)
    torch.testing.assert_close(same(image), image)


@pytest.mark.parametrize(("name", "package"), [
    ("torchvision.mobilenet_v2", "torchvision"), ("mobilenet_v2", "torchvision"),
    ("torchvision.resnet18", "torchvision"), ("timm.resnet18", "timm"), ("regnety_002", "timm"),
    ("vgg11", "torchvision"), ("resnet18", "catchup"),
])
def test_a_name_finds_ours_first_then_torchvision_then_timm(name, package):
    model = on_meta(name, num_classes=10)
    assert type(model).__module__.partition(".")[0] == package
    assert model(torch.rand(2, 3, 64, 64, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(
    "name", ["torchvision.resnet18", "torchvision.vgg11", "torchvision.convnext_tiny", "timm.resnet18"])
def test_other_numbers_of_channels_keep_the_settings_of_the_first_convolution(name):
    first = [next(part for part in on_meta(name, num_classes=4, in_channels=channels).modules()
                  if isinstance(part, nn.Conv2d)) for channels in (3, 5)]
    assert first[1].in_channels == 5
    for setting in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
        assert getattr(first[0], setting) == getattr(first[1], setting)
    assert (first[0].bias is None) == (first[1].bias is None)
    assert on_meta(name, num_classes=4, in_channels=5)(torch.rand(2, 5, 64, 64, device="meta")).shape == (2, 4)


def test_options_reach_the_builder_of_the_library():
    model = on_meta("torchvision.googlenet", num_classes=4, aux_logits=False, init_weights=False)
    assert model.aux1 is None


@pytest.mark.parametrize(("settings", "message"), [
    ({"name": "resnt18"}, r"'resnt18'.*Did you mean 'resnet18'.*preact_resnet18"),
    ({"name": "mobilnet_v2"}, r"torchvision\.NAME or timm\.NAME.*torchvision\.mobilenet_v2"),
    ({"name": "torchvision.resnet51"}, r"'torchvision\.resnet51'.*torchvision\.resnet50"),
    ({"name": "timm.regnety_003"}, r"'timm\.regnety_003'\. Did you mean 'timm\.regnety_"),
    ({"name": "torchvision.regnety_002"}, r"unknown model"),
    ({"name": "torchvision.fasterrcnn_resnet50_fpn"}, r"unknown model"),
    ({"name": "resnet50", "width": 16}, r"torchvision\.resnet50 has no width to set, got width=16"),
    ({"name": "resnet18", "final_norm": True}, r"unknown option of resnet18 'final_norm'"),
    ({"name": "resnet18", "width": 0}, r"width must be a whole number >= 1, got 0"),
    ({"name": "resnet18", "width": 2.5}, r"width must be a whole number >= 1, got 2\.5"),
    ({"name": "resnet18", "stem_stride": 0}, r"stem_stride must be a whole number >= 1, got 0"),
    ({"name": "torchvision.resnet18", "num_classes": 0}, r"num_classes must be a whole number >= 1, got 0"),
    ({"name": "timm.resnet18", "in_channels": -1}, r"in_channels must be a whole number >= 1, got -1"),
])
def test_bad_settings_get_a_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        models.create(**{"num_classes": 10, **settings})


def test_builders_check_their_numbers_too():
    with pytest.raises(ValueError, match="num_classes must be a whole number >= 1, got 0"):
        models.resnet18(num_classes=0)
    with pytest.raises(ValueError, match="width must be a whole number >= 1, got -4"):
        models.preact_resnet18(num_classes=2, width=-4)


def test_without_timm_the_extra_is_named_and_the_other_names_still_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)   # an import of it now fails
    with pytest.raises(ValueError, match=r"pip install 'catchup-mix\[timm\]'"):
        models.create("timm.resnet18", num_classes=10)
    with pytest.raises(ValueError, match="unknown model"):
        models.create("regnety_002", num_classes=10)
    assert on_meta("mobilenet_v2", num_classes=10) is not None

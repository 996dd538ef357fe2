"""Residual branches by class: each verified by what is left of its block when the branch is
silenced.
"""

import copy
import importlib
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from catchup import models
from catchup.hooks.branches import BRANCHES, named_branches, residual_branches

# Model: (branches it must have, what its blocks make of the shortcut alone). The number is the
# depth's arithmetic.
RELU, SAME = F.relu, lambda maps: maps
MODELS = {
    "resnet18": (8, RELU),
    "preact_resnet18": (8, SAME),
    "resnet50": (3 + 4 + 6 + 3, RELU),
    "preact_resnet50": (3 + 4 + 6 + 3, SAME),
    "wrn16_8": (2 + 2 + 2, SAME),
    "pyramidnet200": (22 + 22 + 22, SAME),
    "torchvision.resnet18": (8, RELU),
    "torchvision.resnext50_32x4d": (3 + 4 + 6 + 3, RELU),
    "torchvision.regnet_x_400mf": (1 + 2 + 7 + 12, RELU),
    "torchvision.mobilenet_v2": (1 + 2 + 3 + 2 + 2, SAME),
    "torchvision.mobilenet_v3_small": (6, SAME),
    "torchvision.efficientnet_b0": (1 + 1 + 2 + 2 + 3, SAME),
    "torchvision.efficientnet_v2_s": (2 + 3 + 3 + 5 + 8 + 14, SAME),
    "torchvision.convnext_tiny": (3 + 3 + 9 + 3, SAME),
    "timm.resnet18": (8, RELU),
    "timm.resnet26d": (8, RELU),
    "timm.seresnet18": (8, RELU),
    "timm.resnetv2_18": (8, SAME),
    "timm.resnetv2_50": (16, SAME),
    "timm.convnext_atto": (2 + 2 + 6 + 2, SAME),
    "timm.efficientnet_b0": (1 + 1 + 2 + 2 + 3, SAME),
    "timm.efficientnetv2_rw_t": (None, SAME),
    "timm.mobilenetv3_small_050": (None, SAME),
}


@lru_cache
def outline(name):
    """The model without weights; RegNet computes its widths with tensors, which need a device that
    can.
    """
    with torch.device("cpu" if "regnet" in name else "meta"):
        return models.create(name, num_classes=3, **({} if "." in name else {"width": 4}))


def built(name):
    """The model with small random weights everywhere: some libraries start the last scale of a
    branch at zero.
    """
    model = copy.deepcopy(outline(name)).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for key, values in model.state_dict().items():
        if key.endswith(("running_mean", "num_batches_tracked")):
            values.zero_()
        elif values.ndim <= 1 or values.numel() == len(values):  # norms, biases, layer scales
            values.uniform_(0.5, 1.0, generator=generator)
        else:
            values.normal_(std=values[0].numel() ** -0.5, generator=generator)
    return model


def shortcut_of(block: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """The shortcut path of any of the blocks, from the sources of the libraries."""
    if isinstance(block, models.PreActBlock | models.PreActBottleneck):
        return maps if block.shortcut is None else block.shortcut(F.relu(block.bn1(maps)))
    if type(block).__name__.startswith("PreAct"):
        return maps if block.downsample is None else block.downsample(block.norm1(maps))
    for attribute in ("downsample", "proj", "shortcut"):
        if getattr(block, attribute, None) is not None:
            return getattr(block, attribute)(maps)
    return maps


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_each_branch_silenced_leaves_the_shortcut_alone(name):
    """Each block is run once with its branch replaced by zeros, once with it doubled."""
    if name.startswith("timm"):
        pytest.importorskip("timm")
    model, (count, after) = built(name).eval(), MODELS[name]
    branches = residual_branches(model)
    assert len(branches) == count if count else len(branches) > 3
    inputs, order = {}, []
    for branch in branches:
        block = branch.rpartition(".")[0]
        model.get_submodule(block).register_forward_pre_hook(
            lambda _m, args, block=block: inputs.update({block: args[0].detach().clone()})
        )
        model.get_submodule(branch).register_forward_hook(
            lambda _m, _a, _o, branch=branch: order.append(branch)
        )
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
        assert order == branches  # each once, in this order
        for branch in branches:
            block, maps = (
                model.get_submodule(branch.rpartition(".")[0]),
                inputs[branch.rpartition(".")[0]],
            )
            results = [
                scaled(block, model.get_submodule(branch), maps.clone(), factor)
                for factor in (0.0, 1.0, 2.0)
            ]
            shortcut = shortcut_of(block, maps.clone())
            torch.testing.assert_close(results[0], after(shortcut))
            assert not torch.equal(results[1], results[0])  # the branch does matter
            if after is SAME:
                torch.testing.assert_close(
                    results[2] - shortcut, 2 * (results[1] - shortcut), rtol=1e-3, atol=1e-4
                )


def scaled(block: nn.Module, branch: nn.Module, maps: torch.Tensor, factor: float) -> torch.Tensor:
    handle = branch.register_forward_hook(lambda _m, _a, output: output * factor)
    try:
        return block(maps)
    finally:
        handle.remove()


@pytest.mark.slow
def test_the_table_names_classes_that_exist_and_every_one_is_tested():
    pytest.importorskip("timm")
    kinds = {
        path: getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
        for path in BRANCHES
    }
    used = {type(module) for name in MODELS for module in outline(name).modules()}
    covered = {path for path, kind in kinds.items() if any(issubclass(one, kind) for one in used)}
    assert set(BRANCHES) - covered == {"timm.models.resnetv2.Bottleneck"}  # the next test


def test_timms_residual_blocks_that_no_small_model_uses():
    resnetv2 = pytest.importorskip("timm.models.resnetv2")
    torch.manual_seed(0)
    block = resnetv2.Bottleneck(
        16, 32, bottle_ratio=1, stride=2, proj_layer=resnetv2.DownsampleConv
    ).eval()
    assert residual_branches(block) == ["drop_path"]
    maps = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(
        scaled(block, block.drop_path, maps, 0.0), block.act3(block.downsample(maps))
    )


def test_a_subclass_counts_only_while_it_keeps_its_forward():
    class Kept(models.BasicBlock):
        pass

    class Other(models.BasicBlock):
        def forward(self, maps):
            return super().forward(maps)

    assert residual_branches(nn.Sequential(Kept(4, 4, 1))) == ["0.bn2"]
    with pytest.raises(ValueError, match="no residual branches in Sequential"):
        residual_branches(nn.Sequential(Other(4, 4, 1)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["torchvision.vgg11", "torchvision.densenet121", "torchvision.vit_b_16"]
)
def test_where_none_is_known_the_error_says_how_to_name_them(model):
    network = outline(model)
    with pytest.raises(
        ValueError, match=r"no residual branches in \w+; name the modules .*branches=\("
    ):
        residual_branches(network)


def test_names_and_patterns():
    model = models.create("resnet18", num_classes=3, width=4)
    wrapped = nn.DataParallel(model)
    assert residual_branches(wrapped) == residual_branches(model)
    assert named_branches(wrapped, "layer*.bn2") == residual_branches(model)
    assert named_branches(model, ("layer2.1.bn2", "layer1.?.bn2", "layer2.*.bn2")) == [
        "layer2.1.bn2",
        "layer1.0.bn2",
        "layer1.1.bn2",
        "layer2.0.bn2",
    ]
    with pytest.raises(ValueError, match="unknown layer 'layer1.0.bn3'. Did you mean 'layer1.0.bn"):
        named_branches(model, ("layer1.0.bn3",))

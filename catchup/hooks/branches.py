"""Residual branches: the modules whose output a residual block adds to its shortcut, found by the
blocks' classes.

Stochastic depth and ShakeDrop act on F(x) in x + F(x) and must leave x alone. Which module returns
F(x) stands in the `forward` of a block and nowhere else, so it is known here by class for the
blocks whose `forward` was read: ours, torchvision's and timm's. A subclass counts if it keeps that
`forward`. For any other model the branches are given by name.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from ..utils.choices import misfit
from .blocks import unwrap

# Class of the block: (module whose output is added, the first that is there; attribute that says
# whether there is a shortcut at all, None where there always is).
BRANCHES: dict[str, tuple[str, str | None]] = {
    "catchup.models.residual.BasicBlock": ("bn2", None),
    "catchup.models.residual.Bottleneck": ("bn3", None),
    "catchup.models.residual.PreActBlock": ("conv2", None),
    "catchup.models.residual.PreActBottleneck": ("conv3", None),
    "catchup.models.pyramid.PyramidBottleneck": ("bn4", None),
    "torchvision.models.resnet.BasicBlock": ("bn2", None),
    "torchvision.models.resnet.Bottleneck": ("bn3", None),
    "torchvision.models.regnet.ResBottleneckBlock": ("f", None),
    "torchvision.models.mobilenetv2.InvertedResidual": ("conv", "use_res_connect"),
    "torchvision.models.mobilenetv3.InvertedResidual": ("block", "use_res_connect"),
    "torchvision.models.efficientnet.MBConv": ("stochastic_depth", "use_res_connect"),
    "torchvision.models.efficientnet.FusedMBConv": ("stochastic_depth", "use_res_connect"),
    "torchvision.models.convnext.CNBlock": ("stochastic_depth", None),
    "timm.models.resnet.BasicBlock": ("drop_path|se|bn2", None),
    "timm.models.resnet.Bottleneck": ("drop_path|se|bn3", None),
    "timm.models.resnetv2.PreActBasic": ("drop_path", None),
    "timm.models.resnetv2.PreActBottleneck": ("drop_path", None),
    "timm.models.resnetv2.Bottleneck": ("drop_path", None),
    "timm.models.convnext.ConvNeXtBlock": ("drop_path", None),
    "timm.models._efficientnet_blocks.DepthwiseSeparableConv": ("drop_path", "has_skip"),
    "timm.models._efficientnet_blocks.InvertedResidual": ("drop_path", "has_skip"),
    "timm.models._efficientnet_blocks.EdgeResidual": ("drop_path", "has_skip"),
}


def residual_branches(model: nn.Module) -> list[str]:
    """Names of the modules whose output is the residual branch, F(x) in x + F(x), in the order they
    run.

    Args:
        model: a residual network, wrapped or not (see `unwrap`). Neither run nor changed; may live
            on the meta device.
    Returns:
        Names in `unwrap(model).named_modules()`. Blocks without a shortcut (a stride-2 inverted
        residual) have none.
    Raises:
        ValueError: if the model holds none of the blocks in `BRANCHES`; the message says how to
            name branches by hand.
    """
    bare = unwrap(model)
    found = [
        f"{name}.{branch}" if name else branch
        for name, module in bare.named_modules()
        if (branch := _branch_of(module)) is not None
    ]
    if not found:
        raise ValueError(
            f"found no residual branches in {type(bare).__name__}; name the modules whose output is"
            ' added to the shortcut, for example branches=("layer*.bn2",), with names or patterns'
            " from model.named_modules()"
        )
    return found


def named_branches(model: nn.Module, patterns: str | Sequence[str]) -> list[str]:
    """The modules that these names or patterns ("layer*.bn2"; * also stands for dots) mean, in the
    patterns' order.

    Raises:
        ValueError: if a pattern means no module, with the nearest name.
    """
    names = [name for name, _ in unwrap(model).named_modules() if name]
    found: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        meant = [name for name in names if fnmatchcase(name, pattern)]
        if not meant:
            raise ValueError(misfit("layer", pattern, names))
        found.update(dict.fromkeys(meant))
    return list(found)


def _branch_of(module: nn.Module) -> str | None:
    """The child of a residual block that returns its branch; None for everything else."""
    for kind in type(module).__mro__:
        rule = BRANCHES.get(f"{kind.__module__}.{kind.__name__}")
        if rule is None:
            continue
        children, shortcut = rule
        overridden = type(module).forward is not kind.forward  # type: ignore[attr-defined]
        if overridden or (shortcut and not getattr(module, shortcut)):
            return None
        return next(
            (child for child in children.split("|") if getattr(module, child, None) is not None),
            None,
        )
    return None

"""Layer blocks: where in a CNN the maps are mixed, found by reading the modules, without a forward
pass.

Catch-up Mix draws a layer from the stem and the stages (Kang, Kang & Kim, AAAI 2024: VGG-11 its 8
convolutions, MobileNetV2 its 8 stages with the stem). The reading relies on the order in which
modules were registered:

1. The children of the model are opened as long as one of them is a whole network rather than a
stage.
2. A stage is what then holds two or more convolutions; repeated residual blocks standing side by
   side are one stage. Single convolutions between the stages (transitions, the last 1x1
   convolution) are none.
3. The stem is the last layer before the first stage.
4. Without any stage (VGG, AlexNet) every convolution is a block, with the normalisation and
activation behind it.

Where this guesses wrong the blocks are given by name: `CatchUpMix(blocks=("stem", "layer1"))`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import get_annotations
from math import prod
from typing import get_origin
from weakref import WeakKeyDictionary

from torch import nn
from torch.fx import GraphModule
from torch.jit import ScriptModule
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import UninitializedParameter

from ..utils.choices import misfit

Item = tuple[str, nn.Module]  # qualified name, module
Conv = nn.Conv2d | nn.Conv3d

_END = (nn.Flatten, nn.Linear, nn.AdaptiveAvgPool2d)  # feature maps stop here


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, DataParallel and torch.compile, however nested.

    Args:
        model: any module.
    Returns:
        The innermost module, the same object; `model` itself if nothing wraps it.
    """
    while True:
        if isinstance(model, DataParallel | DistributedDataParallel):
            model = model.module
        elif is_compiled(model):
            model = uncompiled(model)
        else:
            return model


def is_compiled(module: nn.Module) -> bool:
    """Whether `module` is what `torch.compile` made of another one."""
    return "_orig_mod" in module._modules


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that `torch.compile` was given, if `module` is what it returned; else `module`."""
    while is_compiled(module):
        module = module.get_submodule("_orig_mod")
    return module


def submodule(model: nn.Module, layer: str) -> nn.Module:
    """The submodule of that qualified name in the unwrapped model; ValueError with the nearest if
    there is none.
    """
    try:
        return unwrap(model).get_submodule(layer)
    except AttributeError:
        names = [name for name, _ in unwrap(model).named_modules() if name]
        raise ValueError(misfit("layer", layer, names)) from None


def trailing_features(module: nn.Module) -> int | None:
    """How many features the last layer with weights in `module` makes in the last dimension.

    Args:
        module: a block. Read in the order of registration, not run.
    Returns:
        The number; None where that layer is another than a linear one or a layer norm: convolutions
        and batch norm have their channels second.
    """
    for part in reversed(list(module.modules())):
        if isinstance(part, nn.Linear):
            return part.out_features
        if isinstance(part, nn.LayerNorm):
            return part.normalized_shape[-1]
        if part._parameters:
            return None
    return None


def find_blocks(model: nn.Module) -> list[str]:
    """The layer blocks of a CNN, stem first, then its stages, as far as they can be read off its
    modules.

    Source: Kang, Kang & Kim, AAAI 2024, layers 1 to 5; the paper names the layers of ResNet, VGG-11
        and MobileNetV2.

    Args:
        model: a CNN, wrapped or not (see `unwrap`). Neither run nor changed; may live on the meta
            device.
    Returns:
        Names of the unwrapped model's modules, in the order they run; each module's output (B, C,
        H, W), or (B, C, D, H, W) behind 3-D convolutions, is mixed. A compiled part goes by the
        name that it has in the model.
    Raises:
        ValueError: if nothing is found: no convolution, or a single one whose stride is its kernel
            size (the patch embedding of a transformer); for a traced or scripted graph, for layers
            that take their shapes from the first batch, and for a stage that says that it returns
            several maps. The message says how to name blocks by hand.
    """
    inner = unwrap(model)
    items = _children("", inner)
    convs = _convs(inner)
    names: list[str] = []
    if len(convs) > 1 or any(conv.stride != conv.kernel_size for conv in convs):
        _check_shapes_known(inner)
        items = _trunk(items, inner)
        names = _staged(items, inner) or _every_convolution(items, inner)
    if not names:
        for name, part in inner.named_modules():  # a scripted convolution is none of PyTorch's
            _refuse_graph(name, part)
        raise ValueError(
            f"found no layer blocks in {type(inner).__name__} (2-D or 3-D convolutions in it:"
            f" {len(convs)});"
            ' name the modules to mix behind, for example CatchUpMix(blocks=("stem", "layer1")),'
            " with names from model.named_modules()"
        )
    return names


def last_maps(model: nn.Module) -> str:
    """Name of the module that returns a CNN's last maps: its last block, or the activation behind a
    normalisation that follows it (WRN, PyramidNet).

    Args:
        model: as for `find_blocks`, which raises the errors.
    """
    block = remembered_blocks(model)[-1]
    parent = block.rpartition(".")[0]
    items = _children(parent, unwrap(model).get_submodule(parent))
    behind = items[[name for name, _ in items].index(block) + 1 :]
    kinds = [
        (name, _kind(part))
        for name, module in behind
        for _, part in (_children("", module) if _is_chain(module) else [("", module)])
    ]
    found = [kind for _, kind in kinds[:2]] == ["norm", "act"]
    return kinds[1][0] if found else block


def _trunk(items: list[Item], model: nn.Module) -> list[Item]:
    """`items`, every one that is more than a stage replaced by its children, until none is left."""
    in_stages = sum(_weights(module) for _, module in items if _is_heavy(module))
    in_stages = in_stages or _weights(model)
    for index, (name, module) in enumerate(items):
        if _opens(module, model, in_stages):
            return _trunk([*items[:index], *_children(name, module), *items[index + 1 :]], model)
    return items


def _opens(module: nn.Module, model: nn.Module, in_stages: int) -> bool:
    """Whether to look at the children of `module` instead of at itself; `in_stages` are the weights
    of what may be stages: a wide last convolution takes nothing from their row.
    """
    if type(module).forward is nn.Module.forward:  # ModuleList, ModuleDict: never run themselves
        return True
    weights = _weights(module)
    return (
        _is_chain(module)
        and (_has_end(module) or weights == _weights(model))
        or 2 * weights > in_stages
        and _is_network(module)
    )


def _is_network(module: nn.Module) -> bool:
    """Whether `module` is a row of stages: pooled at its end, or shrinking the maps at least
    fourfold.
    """
    # no shortcuts
    children = [child for _, child in _children("", module)]
    parts = [child for child in children if _is_chain(module) or _is_heavy(child)]
    wrapped = [child for child in children if _weights(child) == _weights(module)]
    return _has_end(module) or prod(map(_stride, parts)) >= 4 or any(map(_is_network, wrapped))


def _staged(items: list[Item], model: nn.Module) -> list[str]:
    """Stem and stages; empty if there is no stage."""
    stages = [
        i
        for i, (_, module) in enumerate(items)
        if _is_heavy(module) and not _is_head(module, model)
    ]
    if not stages:
        return []
    if several := [items[i][0] for i in stages if _returns_several(items[i][1])]:
        raise ValueError(
            f"the blocks of {type(model).__name__} are no row: {several[0]!r} says that it returns"
            " several maps; name the modules to mix behind, each with one map,"
            f' for example CatchUpMix(blocks=("{items[0][0]}",)), with names from'
            " model.named_modules()"
        )
    ends: list[int] = []
    for i in stages:
        if ends and ends[-1] == i - 1 and _repeats(items[i][1], items[i - 1][1]):
            ends[-1] = i
        else:
            ends.append(i)
    first = stages[0]
    before = [i for i in range(first) if _convs(items[i][1])]
    if before:
        ends.insert(0, _reach(items, before[-1], ("norm", "act", "pool")))
    elif _kind(items[min(first + 1, len(items) - 1)][1]) == "norm":
        # stem of several convolutions, its norm outside
        ends[0] = _reach(items, ends[0], ("norm", "act", "pool"))
    return [items[i][0] for i in ends]


def _returns_several(module: nn.Module) -> bool:
    """Whether `forward` of `module`, or of the last module in a sequence, is annotated to return
    several maps.
    """
    said = get_annotations(type(module).forward).get("return")
    named = isinstance(said, str) and said.lower().startswith(("list[", "tuple[", "dict["))
    if named or get_origin(said) in (list, tuple, dict):
        return True
    inside = list(module.children()) if isinstance(module, nn.Sequential) else []
    return bool(inside) and _returns_several(inside[-1])


def _check_shapes_known(model: nn.Module) -> None:
    """ValueError if the shapes of lazy layers are not known yet."""
    if any(isinstance(weight, UninitializedParameter) for weight in model.parameters()):
        raise ValueError(
            f"{type(model).__name__} has lazy layers, whose shapes are not known yet: run it"
            " once on a batch first"
        )


def _every_convolution(items: list[Item], model: nn.Module) -> list[str]:
    """Each convolution, named by the last norm or activation of its own; without Linear the last
    one classifies.
    """
    while any(_is_chain(module) for _, module in items):
        items = [
            part
            for name, module in items
            for part in (_children(name, module) if _is_chain(module) else [(name, module)])
        ]
    found = [i for i, (_, module) in enumerate(items) if _kind(module) == "conv"]
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        found = found[:-1]
    chained = {
        name
        for path, chain in model.named_modules()
        if _is_chain(chain)
        for name, _ in _children(_own_name(path), chain)
    }
    # elsewhere the order is unknown
    follows = [item if item[0] in chained else ("", nn.Identity()) for item in items]
    return [
        items[_reach(follows, i, ("norm", "act")) if items[i][0] in chained else i][0]
        for i in found
    ]


def _reach(items: list[Item], start: int, kinds: tuple[str, ...]) -> int:
    """Index of the last of the items of these kinds that stand right behind `start`; a module used
    twice stops it.
    """
    uses = Counter(id(module) for _, module in items)
    end = start
    while (
        end + 1 < len(items)
        and _kind(items[end + 1][1]) in kinds
        and uses[id(items[end + 1][1])] == 1
    ):
        end += 1
    return end


def _kind(module: nn.Module) -> str:
    """ "conv", "norm", "act", "pool" or "" for anything else."""
    name = type(module).__name__
    if _convs(module):
        return "conv"
    if "Norm" in name:
        return "norm"
    if type(module).__module__ == "torch.nn.modules.activation":
        return "act"
    return "pool" if "Pool" in name and "Adaptive" not in name else ""


def _repeats(block: nn.Module, previous: nn.Module) -> bool:
    """Whether a residual block keeps the shape that the block before it has made."""
    convs = _convs(block)
    return (
        type(block) is type(previous)
        and not _is_chain(block)
        and _stride(block) == 1
        and convs[0].in_channels == convs[-1].out_channels
    )


def _is_head(module: nn.Module, model: nn.Module) -> bool:
    """Whether `module` ends in a linear layer as wide as the model's last: an auxiliary
    classifier.
    """
    last = [part for part in module.modules() if part._parameters][-1]
    widths = [part.out_features for part in model.modules() if isinstance(part, nn.Linear)]
    return isinstance(last, nn.Linear) and last.out_features == widths[-1]


def _stride(module: nn.Module) -> int:
    """How much `module` shrinks the maps: product along a chain, else the largest of its
    branches.
    """
    stride = getattr(module, "stride", 1)
    inside = [_stride(child) for child in module.children()]
    if not inside:
        return (
            max(stride) if isinstance(stride, tuple) else stride if isinstance(stride, int) else 1
        )
    return prod(inside) if _is_chain(module) else max(inside)


def _is_chain(module: nn.Module) -> bool:
    """Whether the children run one after the other: a Sequential that keeps its forward."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _has_end(module: nn.Module) -> bool:
    """Whether pooling to a vector or a linear layer stands among the children."""
    return any(isinstance(child, _END) for child in module.children())


def _is_heavy(module: nn.Module) -> bool:
    """Whether `module` holds two or more convolutions."""
    return len(_convs(module)) >= 2


def _convs(module: nn.Module) -> list[Conv]:
    """The convolutions in `module`, itself included."""
    return [part for part in module.modules() if isinstance(part, Conv)]


def _weights(module: nn.Module) -> int:
    """Number of weights of the convolutions in `module`."""
    return sum(conv.weight.numel() for conv in _convs(module))


def _children(name: str, module: nn.Module) -> list[Item]:
    """The children with their qualified names, as they are before compiling; one registered twice
    comes twice. ValueError for a graph.
    """
    _refuse_graph(name, module)
    return [
        (f"{name}.{key}" if name else key, uncompiled(child))
        for key, child in module._modules.items()
        if child is not None
    ]


def _refuse_graph(name: str, module: nn.Module) -> None:
    """ValueError for a graph: its parts are no modules that run."""
    if isinstance(module, GraphModule | ScriptModule):
        raise ValueError(
            f"{name or 'the model'} is a graph ({type(module).__name__}, of torch.fx, torch.export"
            " or torch.jit), whose stages do not run as modules, so that nothing can be mixed"
            " behind them: give the model that it was made from"
        )


def _own_name(path: str) -> str:
    """A qualified name without what `torch.compile` puts into it."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


def remember(
    search: Callable[[nn.Module], Sequence[str]],
) -> Callable[[nn.Module], tuple[str, ...]]:
    """`search`, its answer kept per unwrapped model: a step may not pay for the search again."""
    answers: WeakKeyDictionary[nn.Module, tuple[str, ...]] = WeakKeyDictionary()

    @wraps(search)
    def look_up(model: nn.Module) -> tuple[str, ...]:
        bare = unwrap(model)
        if bare not in answers:
            answers[bare] = tuple(search(bare))
        return answers[bare]

    return look_up


remembered_blocks = remember(find_blocks)

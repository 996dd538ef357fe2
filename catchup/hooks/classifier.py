"""The linear layer that makes the logits, found by the order of registration."""

from torch import nn

from ..utils.choices import pick
from .blocks import unwrap


def find_classifier(model: nn.Module, name: str | None = None) -> tuple[str, nn.Linear]:
    """The linear layer that makes the logits: the one registered last, unless another could be
    meant.

    Args:
        model: a CNN, wrapped or not (see `unwrap`). Neither run nor changed.
        name: qualified name of the layer in the unwrapped model, where it is known; None looks for
            it.
    Returns:
        Its qualified name in `unwrap(model).named_modules()` and the layer itself.
    Raises:
        ValueError: if there is no `nn.Linear`, none of that name, or more than one that could be
            the last: a second head beside it whose output no linear layer there reads, or one as
            wide further out (an auxiliary classifier that was registered after the main one).
    """
    inner = unwrap(model)
    layers = {path: part for path, part in inner.named_modules() if isinstance(part, nn.Linear)}
    if not layers:
        raise ValueError(
            f"{type(inner).__name__} has no linear layer (nn.Linear) that makes its logits: this"
            " needs a model that ends in a linear layer, not one without any"
        )
    if name is not None:
        return pick("linear layer", name, layers), layers[name]
    last = list(layers)[-1]
    rivals = [path for path in list(layers)[:-1] if _rivals(path, last, layers)]
    if rivals:
        raise ValueError(
            f"which linear layer of {type(inner).__name__} makes the logits, {last!r} or "
            f"{' or '.join(map(repr, rivals))}? Name it, for example classifier={last!r}"
        )
    return last, layers[last]


def _rivals(path: str, last: str, layers: dict[str, nn.Linear]) -> bool:
    """Whether the linear layer `path` might be the classifier just as well as the one registered
    last.
    """
    if path.rpartition(".")[0] != last.rpartition(".")[0]:
        return layers[path].out_features == layers[last].out_features and path.count(
            "."
        ) < last.count(".")
    siblings = [name for name in layers if name.rpartition(".")[0] == path.rpartition(".")[0]]
    reader = siblings[siblings.index(path) + 1]
    return layers[path].out_features != layers[reader].in_features

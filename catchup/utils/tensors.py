"""What tensors must be, asked in one place: labels, answers of a model, images, generators."""

import torch
from torch import Tensor


def form_of(tensor: Tensor) -> str:
    """Its type and shape, as error messages name them."""
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def check_labels(labels: Tensor, count: int, classes: int) -> None:
    """Raises ValueError unless `labels` are (count,) int64 in [0, classes)."""
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise ValueError(f"labels must be int64 ({count},), got {form_of(labels)}")
    if count:
        low, high = (int(bound) for bound in labels.aminmax())
        if low < 0 or high >= classes:
            raise ValueError(f"labels must lie in [0, {classes - 1}], got {low} to {high}")


def check_answers(logits: Tensor) -> Tensor:
    """The logits; FloatingPointError unless all of them are finite."""
    if not logits.isfinite().all():
        raise FloatingPointError(
            "the model answers with NaN or infinity: its weights are of no use, train it again"
        )
    return logits


def check_unit_range(images: Tensor) -> None:
    """Raises ValueError unless all values lie in [0, 1]."""
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"images must lie in [0, 1], before normalisation, got values from {low:g} to {high:g}"
        )


def check_on_cpu(generator: torch.Generator) -> None:
    """Raises ValueError unless the generator is on the CPU."""
    if generator.device.type != "cpu":
        raise ValueError(
            "the generator must be on the CPU, so that a seed means the same everywhere, "
            f"got one on {generator.device}"
        )

"""Where an image matters to its own label: saliency maps that methods mix by."""

import torch
from torch import Tensor, nn

from ..blocks import unwrap
from ..hooks import evaluating
from ..target import Target


def gradient_saliency(model: nn.Module, images: Tensor, labels: Tensor, criterion="ce") -> Tensor:
    """|∂ loss / ∂ pixel|, the l2 norm over the colours: one extra forward and backward pass.

    The pass is made in evaluation mode, so that no running statistic moves, and on the bare model, so that DDP does not
    count it; only the images' gradient is computed, no parameter gets one.

    Args:
        model: from images (B, C, H, W) to logits (B, N), in any mode, wrapped or not.
        images: (B, C, H, W) floating. labels: (B,) int64 or (B, N) floating.
        criterion: as for every mixer.
    Returns:
        (B, H, W) float32, ≥ 0, detached. In units of the summed loss per unit of the input.
    """
    with evaluating(model), torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        loss = Target((labels,), (1.0,)).loss(unwrap(model)(inputs), criterion)
        gradient, = torch.autograd.grad(loss * len(images), inputs)  # summed: a mean would underflow in half floats
    return torch.linalg.vector_norm(gradient.float(), dim=1)

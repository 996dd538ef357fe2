"""Where in an image a class score is sensitive: saliency and Grad-CAM, through captum.

Both are first-order: they say where a small change would move the score, not what the model needs.
A map of zeros may mean that a score is saturated. The model is looked at in evaluation mode and
left as it was.
"""

import torch
from torch import Tensor, nn

from ..hooks.blocks import submodule
from ..hooks.layers import evaluating
from ..utils.optional import require
from ..utils.tensors import check_labels, form_of


def saliency(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """|∂ score / ∂ pixel| of the score of each image's label, the largest over the colours.

    Source: Simonyan, Vedaldi & Zisserman, "Deep Inside Convolutional Networks", ICLR workshop 2014,
        Section 3.1.

    Args:
        model: from (B, C, H, W) to logits (B, N), in any mode.
        images: (B, C, H, W) floating, as the model takes them, on its device.
        labels: (B,) int64 in [0, N).
    Returns:
        (B, H, W) ≥ 0, the images' dtype, in score units per unit of the input; detached.
    Raises:
        ValueError: if images or labels do not fit. ImportError: if captum is not installed.
    """
    attr = require("captum.attr")
    with evaluating(model), torch.enable_grad():
        inputs = _differentiable_inputs(model, images, labels)
        return attr.Saliency(model).attribute(inputs, target=labels).amax(dim=1).detach()


def grad_cam(model: nn.Module, images: Tensor, labels: Tensor, block: str) -> Tensor:
    """Grad-CAM: the maps of a block, weighted with their mean gradient, summed, and what is
    negative cut off.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017, Eqs. 1 and 2; enlarged to the image bilinearly.

    Args:
        model, images, labels: as for `saliency`.
        block: qualified name of a module with (B, C, h, w) output, as in `find_blocks`.
    Returns:
        (B, H, W) ≥ 0, detached; 0 everywhere where no weighted map speaks for the class.
    Raises:
        ValueError: as `saliency`, and for an unknown block. ImportError: if captum is not
            installed.
    """
    attr, module = require("captum.attr"), submodule(model, block)
    with evaluating(model), torch.enable_grad():
        inputs = _differentiable_inputs(model, images, labels)
        explain = attr.LayerGradCam(model, module).attribute
        cam = explain(inputs, target=labels, relu_attributions=True)
    if cam.ndim != 4:
        raise ValueError(
            f"block {block!r} must return maps (B, C, h, w), Grad-CAM of it came out"
            f" {tuple(cam.shape)}"
        )
    size = tuple(images.shape[2:])
    cam = attr.LayerAttribution.interpolate(cam, size, interpolate_mode="bilinear")
    return cam[:, 0].detach()


def _differentiable_inputs(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """A copy of the images that asks for gradients: the caller's tensor is never touched."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images must be (B, C, H, W) floating, got {form_of(images)}")
    with torch.no_grad():
        classes = model(images[:1]).shape[1]
    check_labels(labels, len(images), classes)
    return images.detach().clone().requires_grad_()

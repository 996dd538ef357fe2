"""Methods that look at the clean images first: their saliency, and by the way their loss."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..hooks.blocks import unwrap
from .base import Mixer
from .checks import check_at_least, check_logits
from .draw import Draw, Mixed, Step
from .parts.saliency import clean_loss, gradient_saliency
from .target import Criterion


class _Recalled(torch.autograd.Function):
    """A loss whose value and gradients have been computed before."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *parameters_and_gradients: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters_and_gradients[count:])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (
            None,
            None,
            *(grad * gradient for gradient in ctx.saved_tensors),
            *[None] * len(ctx.saved_tensors),
        )


def training_saliency(
    model: nn.Module, images: Tensor, labels: Tensor, criterion: Criterion
) -> dict[str, Tensor]:
    """As `gradient_saliency`, from a training pass on the clean images whose loss is to be learned
    from as well.

    The pass is made in the mode the model is in, as in the releases of PuzzleMix and Co-Mixup: the
    running statistics of BatchNorm move, for the model does learn from these images.

    Returns:
        "saliency": (B, H, W) float32. "clean_loss": 0-dim. "clean_0", "clean_1", …: its gradient by
        each parameter that takes one, zeros where the parameter had no part. All detached; for
        `recalled_loss`.
    """
    with torch.enable_grad():
        inputs, parameters = images.detach().clone().requires_grad_(), _trained_parameters(model)
        logits = unwrap(model)(inputs)
        check_logits(logits, labels)
        loss = clean_loss(logits, labels, criterion)
        gradient, *gradients = torch.autograd.grad(
            loss * len(images), [inputs, *parameters], allow_unused=True
        )
    # the weight that the releases give the clean images beside the smaller mixed loss
    weight = 2 / logits.shape[1] if criterion == "bce_softmax" else 1.0
    clean = {
        f"clean_{k}": torch.zeros_like(parameter) if of is None else of / len(images) * weight
        for k, (parameter, of) in enumerate(zip(parameters, gradients))
    }
    saliency = torch.linalg.vector_norm(gradient.float(), dim=1)
    return {"saliency": saliency, "clean_loss": weight * loss.detach(), **clean}


def recalled_loss(model: nn.Module, draw: Draw) -> Tensor | None:
    """The clean loss of `training_saliency` with its gradient, 0-dim; None if the draw holds
    none.
    """
    if "clean_loss" not in draw.extra:
        return None
    parameters = _trained_parameters(model)
    gradients = [draw.extra[f"clean_{k}"] for k in range(len(parameters))]
    return _Recalled.apply(draw.extra["clean_loss"], len(parameters), *parameters, *gradients)


def _trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in unwrap(model).parameters() if parameter.requires_grad]


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanPassMixer(Mixer):
    """A mixer guided by the gradient of the clean images' loss: one forward and one backward pass
    more than plain training.

    Under `criterion="bce_softmax"` saliency and clean loss are cross-entropy's, and the clean loss
    is divided by half the number of classes, as in the releases.

    Args:
        clean_lam: weight of the loss of the clean images, ≥ 0. It costs no further pass: above 0
            the saliency pass is made in training mode and its gradients are kept; at 0 it is made
            in evaluation mode.
    """

    clean_lam: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(clean_lam=(self.clean_lam, 0))

    def look_up(self, model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """ "saliency", (B, H, W) float32, and where the clean images count their loss."""
        if self.clean_lam > 0:
            return training_saliency(model, images, labels, self.criterion)
        return {"saliency": gradient_saliency(model, images, labels, self.criterion)}

    def auxiliary_loss(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        step: Step,
        mixed: Mixed,
        logits: Tensor,
    ) -> Tensor | None:
        """clean_lam × the loss of the clean images; None at clean_lam 0."""
        clean = recalled_loss(model, step.draw)
        return None if clean is None else self.clean_lam * clean

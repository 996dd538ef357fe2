"""The weights of a model at several epochs of its training, in memory: what the explorers look back
through.
"""

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from ..hooks.blocks import unwrap
from ..utils.choices import check_whole


class Snapshots:
    """Copies of a model's weights on the CPU, taken after the epochs one asks for.

    `catchup.fit(model, …, on_epoch=snapshots)` fills it. Each epoch costs the memory of the weights
    once (ResNet-18 of width 16: 2.9 MB; of width 64: 45 MB), so name the epochs of a long run.

    Args:
        model: the model that will be trained, not compiled as a whole. Its weights as they are now
            become epoch 0.
        epochs: which to keep, besides 0; None keeps every one.
    Raises:
        ValueError: if an epoch is not an integer ≥ 0, or the model is compiled as a whole.
    """

    def __init__(self, model: nn.Module, epochs: Iterable[int] | None = None):
        if hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None:
            raise ValueError(
                "the model is compiled as a whole and cannot be copied: take the snapshots of the"
                " model before torch.compile"
            )
        if not isinstance(epochs, Iterable | None):
            raise ValueError(
                f"epochs must be integers in a list or range, or None for all, got {epochs!r}"
            )
        self._wanted = None if epochs is None else frozenset(epochs)
        for epoch in self._wanted or ():
            check_whole(0, epochs=epoch)
        self._model = unwrap(model)
        self._blank = _without_hooks(copy.deepcopy(self._model)).cpu()
        self._states: dict[int, dict] = {0: self._now()}

    def __call__(self, row: Mapping) -> None:
        """Keeps the weights as they are now, as those of `row["epoch"]`, if it is one to be
        kept.
        """
        if self._wanted is None or row["epoch"] in self._wanted:
            self._states[int(row["epoch"])] = self._now()

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs there are, ascending; 0 is the untrained start."""
        return tuple(sorted(self._states))

    def model(self, epoch: int) -> nn.Module:
        """A model of its own with the weights of that epoch, on the CPU, in evaluation mode,
        without hooks.

        Raises:
            ValueError: if that epoch was not kept.
        """
        if epoch not in self._states:
            raise ValueError(
                f"there is no snapshot of epoch {epoch!r}; kept are"
                f" {', '.join(map(str, self.epochs))}"
            )
        model = copy.deepcopy(self._blank)
        model.load_state_dict(self._states[epoch])
        return model.eval()

    def models(self, epochs: Iterable[int] | None = None) -> dict[str, nn.Module]:
        """{"epoch 0": model, …} of all epochs kept, or of those named."""
        chosen = self.epochs if epochs is None else epochs
        return {f"epoch {epoch}": self.model(epoch) for epoch in chosen}

    def _now(self) -> dict[str, torch.Tensor]:
        state = self._model.state_dict()
        return {key: value.detach().to("cpu", copy=True) for key, value in state.items()}


def _without_hooks(model: nn.Module) -> nn.Module:
    """The model, its forward and backward hooks taken away: a copy made inside a recording has the
    recorder's.
    """
    for module in model.modules():
        for direction in ("forward", "backward"):
            for kind in ("hooks", "pre_hooks"):
                getattr(module, f"_{direction}_{kind}").clear()
    return model

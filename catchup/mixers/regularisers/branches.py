"""What stochastic depth and ShakeDrop share: the residual branches, and how likely the l-th of them
is left alone.
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...hooks.blocks import remember
from ...hooks.branches import named_branches, residual_branches
from .acting import act_behind
from .base import Regulariser

remembered_branches = remember(residual_branches)


def survivals(branches: int, last: float) -> list[float]:
    """p_l = 1 − (l / L)(1 − p_L) for l = 1 … L: the linear rule (Huang et al., ECCV 2016, Eq. 4).

    Args:
        branches: L ≥ 0. last: p_L in [0, 1].
    """
    return [1 - number / branches * (1 - last) for number in range(1, branches + 1)]


@dataclass(frozen=True, kw_only=True)
class BranchRegulariser(Regulariser):
    """A regulariser of residual branches.

    Args:
        survival: p_L in (0, 1], the probability that the last branch is left alone; earlier ones
            follow linearly. 1 turns the regulariser off.
        branches: qualified names or patterns ("layer*.bn2") of the modules whose output is added to
            the shortcut, in the order they run; None finds them
            (`catchup.hooks.branches.residual_branches`).
    """

    survival: float = 0.5
    branches: str | tuple[str, ...] | None = None

    name: ClassVar[str]  # what its chance is drawn under

    def __post_init__(self) -> None:
        if not 0 < self.survival <= 1:
            raise ValueError(f"survival must lie in (0, 1], got {self.survival}")

    @abstractmethod
    def on_branch(self, maps: Tensor, survival: float, generator: torch.Generator) -> Tensor:
        """What becomes of the output (B, …) of a branch with this survival probability; `maps` is
        left as it is.
        """

    def branch_names(self, model: nn.Module) -> tuple[str, ...]:
        """The branches, found or given; ValueError if there are none."""
        return (
            remembered_branches(model)
            if self.branches is None
            else tuple(named_branches(model, self.branches))
        )

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if the model has no residual branches, or none of a given name."""
        self.branch_names(model)

    @contextmanager
    def around(self, model: nn.Module, seed: int) -> Iterator[None]:
        """Inside the block `on_branch` acts on every branch."""
        names = self.branch_names(model) if self.survival < 1 else ()
        likely = survivals(len(names), self.survival)

        def act(index: int, maps: Tensor, generator: torch.Generator) -> Tensor:
            return self.on_branch(maps, likely[index], generator)

        with act_behind(model, names, act, seed, self.name):
            yield

"""What every method is: a `draw` that holds all the chance, a pure `mix`, and one `loss` written
once for all.

A new method is a subclass with `mix` (and, where it differs, `draw`, `target` or the whole `loss`),
a line in `mixers/__init__.py`, a row in the tests' table and a row in `docs/methods.md`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from ..hooks.blocks import submodule, trailing_features
from ..hooks.layers import edited
from ..hooks.passes import side_passes
from ..utils.choices import pick
from .checks import check_batch, check_draw, check_logits, check_maps, check_positive
from .draw import Draw, Mixed, Step
from .published import published_settings
from .regularisers import Regulariser, parse_all
from .target import CRITERIA, Criterion, Target

# (block or None for the input; draw; what `mix` returned)
Watcher = Callable[[str | None, Draw, Mixed], None]


@dataclass
class Memory:
    """What changes while a mixer is used; its settings never do.

    Attributes:
        rng: where all draws come from.
        regularisers: what composes with the method, as the run told them of its data.
        state: what the method keeps between steps (a history), tensors and numbers.
        modules: the method's own networks (AutoMix's Mix Block), made by `begin_run`.
        last: what the last step did; None before it.
        watchers: who sees every mix, see `Mixer.watched`.
        worker: seed of the DataLoader's worker that the generator is of; None in the main process.
        autocast: dtype of the run's mixed precision, for passes of networks that the run has not
            prepared (AutoMix's momentum encoder); None leaves them to the caller.
    """

    rng: np.random.Generator
    regularisers: tuple[Regulariser, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    last: Step | None = None
    watchers: list[Watcher] = field(default_factory=list)
    worker: int | None = None
    autocast: torch.dtype | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixer(ABC):
    """A way to train on mixed batches. Settings are frozen; chance comes from the mixer's own
    generator.

    Args:
        prob: probability that a step mixes at all, in [0, 1]; otherwise it is a plain step.
        criterion: "ce" (cross-entropy), "bce_softmax" (see `Target.bce_softmax`) or a function of
            (logits, target).
        regularisers: what composes with the method, by name: "cutout", "dropblock:block=5" (see
            `catchup methods`).
        seed: of the generator; None draws one from torch's global generator, which
            `torch.manual_seed` governs, so that mixers made one after the other differ.
    """

    prob: float = 1.0
    criterion: Criterion = "ce"
    regularisers: tuple[str, ...] = ()
    seed: int | None = None

    title: ClassVar[str]  # its name in figures and text
    about: ClassVar[str]  # one line for `catchup methods`: where it mixes and the paper it is from
    planar: ClassVar[bool] = False  # whether it mixes images (B, C, H, W) alone, no volumes
    # forward and backward passes of the model in one mixed step
    passes: ClassVar[tuple[int, int]] = (1, 1)

    def __post_init__(self) -> None:
        if not 0 <= self.prob <= 1:
            raise ValueError(f"prob must lie in [0, 1], got {self.prob}")
        if not callable(self.criterion):
            pick("criterion", self.criterion, CRITERIA)
        _ = self.memory  # made now, so that the seed is that of this moment and bad names fail here

    @classmethod
    def published(cls, data: str, **settings: Any) -> Self:
        """The method with the settings it was published with on a data set, such as "cifar100".

        Args:
            data: name of the data set.
            settings: what goes before the published.
        Raises:
            ValueError: if nothing was published on it, naming the data sets there are.
        """
        return cls(**{**published_settings(cls.__name__, data), **settings})

    @cached_property
    def memory(self) -> Memory:
        """All that changes, in one plain object beside the frozen settings: what a mixer is asked
        to do never depends on what it has done.
        """
        seed = int(torch.randint(2**62, ())) if self.seed is None else self.seed
        return Memory(np.random.default_rng(seed % 2**64), parse_all(self.regularisers))

    # -- the method: `mix` has to be written, the rest may be overridden ---------------------------

    @abstractmethod
    def mix(self, maps: Tensor, draw: Draw) -> Mixed:
        """The mixed maps of a batch, (B, C, …); pure: the same arguments give the same result, none
        is changed.
        """

    def block_names(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the blocks 1, 2, … whose outputs may be mixed; empty for methods that mix the
        input.
        """
        return ()

    def layer_set(self, n_blocks: int) -> Sequence[int]:
        """The layers to draw from, uniformly; 0 is the input."""
        return (0,)

    def draw_lam(self, layer: int, rng: np.random.Generator) -> float:
        """λ for one batch mixed at `layer`."""
        return 1.0

    def draw(self, batch: int, n_blocks: int, rng: np.random.Generator) -> Draw:
        """Everything chance decides for one batch of `batch` images. The same state of `rng` gives
        the same draw.
        """
        mixes = rng.random() < self.prob
        layers = self.layer_set(n_blocks)
        layer = layers[int(rng.integers(len(layers)))]
        lam, seed = self.draw_lam(layer, rng), int(rng.integers(2**32))
        # of its own, so that the batch size does not move the next draws
        pairs = np.random.default_rng([seed, 1])
        return Draw(layer if mixes else None, torch.from_numpy(pairs.permutation(batch)), lam, seed)

    def plan(self, model: nn.Module, images: Tensor, labels: Tensor, draw: Draw) -> Draw:
        """The draw completed by what has to be looked up first: a saliency pass, other partners.
        Default: as drawn.

        Called for steps that mix, before the forward pass; pass the bare model (`unwrap`) images of
        its own.
        """
        return draw

    def target(self, labels: Tensor, draw: Draw, mixed: Mixed) -> Target:
        """The labels of the mixed batch."""
        return Target.pair(
            labels,
            draw.partner.to(labels.device, non_blocking=True),
            mixed.own_weight,
            mixed.partner_weight,
        )

    def auxiliary_loss(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        step: Step,
        mixed: Mixed,
        logits: Tensor,
    ) -> Tensor | None:
        """A term to add to the mixed loss, 0-dim; None where there is none. `logits` (B, N) carry
        their graph.
        """
        return None

    # -- the life of a run: training calls these for every method ----------------------------------

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if the method cannot train this model: no blocks found, no such block
        or layer.
        """
        self.layer_set(len(self.block_names(model)))
        for regulariser in self.memory.regularisers:
            regulariser.check(model)

    def begin_run(self, model: nn.Module, num_classes: int) -> list[dict]:
        """Called once before training, the model on its device; forgets what an earlier run left.

        Returns:
            Extra optimiser groups of a method with parameters of its own: `params`, and where they
            differ from the run's `lr`, `weight_decay` and `min_lr` (the floor of a cosine
            schedule). Empty for most methods.
        """
        self.state.clear()
        return []

    def begin_precision(self, dtype: torch.dtype | None) -> None:
        """Called once before training: what the model's passes are autocast to; None in float32."""
        self.memory.autocast = dtype

    def begin_data(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Called once before training: how the run normalises its images, which some regularisers
        need (AugMix).
        """
        self.memory.regularisers = tuple(
            regulariser.for_data(mean, std) for regulariser in self.memory.regularisers
        )

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Called before epoch `epoch` (from 0) of `epochs`."""

    def end_step(self, model: nn.Module) -> None:
        """Called after the optimiser's step."""

    def state_dict(self) -> dict:
        """All that has to be stored for the next step to be the same."""
        return {
            "rng": self.rng.bit_generator.state,
            "state": dict(self.state),
            "modules": {name: module.state_dict() for name, module in self.modules.items()},
        }

    def load_state_dict(self, state: Mapping) -> None:
        """Takes up a stored state; ValueError if it is of a method with modules that `begin_run`
        has not made yet.
        """
        modules = state.get("modules", {})
        if set(modules) != set(self.modules):
            raise ValueError(
                f"the stored state has the modules {sorted(modules)}, the method"
                f" {sorted(self.modules)}: call begin_run(model, num_classes) first, on a method of"
                " the same settings"
            )
        for name, values in modules.items():
            self.modules[name].load_state_dict(values)
        self.state.clear()
        self.state.update(state.get("state", {}))
        self.rng.bit_generator.state = state["rng"]

    # -- written once ------------------------------------------------------------------------------

    @property
    def rng(self) -> np.random.Generator:
        """The generator all draws come from. In a worker of a DataLoader, which is a copy of the
        process, one of its own, another in every epoch.
        """
        worker = torch.utils.data.get_worker_info()
        if worker is not None and self.memory.worker != worker.seed:
            self.memory.worker = worker.seed
            own = int(self.memory.rng.integers(2**32))
            self.memory.rng = np.random.default_rng([own, worker.seed])
        return self.memory.rng

    @property
    def state(self) -> dict[str, Any]:
        """What the method remembers between steps (a history), tensors and numbers; stored with the
        run.
        """
        return self.memory.state

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The method's own networks (AutoMix's Mix Block), made by `begin_run`; stored with the
        run.
        """
        return self.memory.modules

    @property
    def last(self) -> Step | None:
        """What the last step did."""
        return self.memory.last

    @contextmanager
    def watched(self, watcher: Watcher) -> Iterator[None]:
        """Inside the block `watcher(block, draw, mixed)` sees every mix, its graph still
        attached.
        """
        self.memory.watchers.append(watcher)
        try:
            yield
        finally:
            self.memory.watchers.remove(watcher)

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, draw: Draw | None = None
    ) -> Tensor:
        """Loss of one training step on a mixed batch: one forward pass of `model`; call
        `.backward()` on it.

        Args:
            model: any module from (B, C, H, W) images to (B, N) logits, on the images' device, in
                any mode; also wrapped for DDP. Hooks exist on it only during this call.
            images: (B, C, H, W) floating, B ≥ 1 (B = 1 mixes an image with itself: a plain step).
            labels: (B,) integer class numbers in [0, N), or (B, N) floating class shares.
            draw: a fixed draw; by default a new one from the mixer's generator.
        Returns:
            0-dim float32 tensor.
        Raises:
            ValueError: for images, labels or a draw that do not fit together.
            RuntimeError: if the drawn block did not run (see `catchup.hooks.edited`).
        """
        labels = check_batch(images, labels)
        if self.planar and images.ndim != 4:
            raise ValueError(
                f"{self.title} mixes images (B, C, H, W), got {tuple(images.shape)}: choose a"
                " method that mixes volumes or signals"
            )
        blocks = self.block_names(model)
        draw = (
            self.draw(len(images), len(blocks), self.rng)
            if draw is None
            else check_draw(draw, images, blocks)
        )
        with self._regularising(model, draw.seed):
            loss = self._mixed_loss(
                model, self._regularise(images, draw.seed), labels, draw, blocks
            )
            for regulariser in self.memory.regularisers:
                with side_passes():
                    extra = regulariser.extra_loss(model, images, draw.seed)
                loss = loss if extra is None else loss + extra
        return loss

    def _mixed_loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, draw: Draw, blocks: Sequence[str]
    ) -> Tensor:
        if draw.layer is not None:
            with side_passes():
                draw = self.plan(model, images, labels, draw)
        block = blocks[draw.layer - 1] if draw.layer else None
        logits, mixed = self._forward(model, images, draw, block)
        check_logits(logits, labels)
        target = (
            Target((labels,), (1.0,)) if draw.layer is None else self.target(labels, draw, mixed)
        )
        for regulariser in self.memory.regularisers:
            target = regulariser.target(target, logits.shape[1])
        step = Step(draw, block, mixed.own_weight, mixed.keep, target, logits.detach())
        self.memory.last = step
        loss = target.loss(logits, self.criterion)
        with side_passes():
            extra = self.auxiliary_loss(model, images, labels, step, mixed, logits)
        return loss if extra is None else loss + extra

    @contextmanager
    def _regularising(self, model: nn.Module, seed: int) -> Iterator[None]:
        """Inside the block every regulariser acts in the model."""
        with ExitStack() as stack:
            for regulariser in self.memory.regularisers:
                stack.enter_context(regulariser.around(model, seed))
            yield

    def _regularise(self, images: Tensor, seed: int) -> Tensor:
        """The images as the regularisers leave them."""
        for regulariser in self.memory.regularisers:
            images = regulariser.images(images, seed)
        return images

    def _forward(
        self, model: nn.Module, images: Tensor, draw: Draw, block: str | None
    ) -> tuple[Tensor, Mixed]:
        if draw.layer is None:
            return model(images), Mixed(images, 1.0)
        if block is None:
            mixed = self._show(None, draw, self.mix(images, draw))
            return model(mixed.maps), mixed
        mixes: list[Mixed] = []
        features = trailing_features(submodule(model, block))

        def edit(maps: Tensor) -> Tensor:
            maps = check_maps(maps, images, block, features)
            mixes.append(self._show(block, draw, self.mix(maps, draw)))
            return mixes[0].maps

        with edited(model, block, edit):
            logits = model(images)
        return logits, mixes[0]

    def _show(self, block: str | None, draw: Draw, mixed: Mixed) -> Mixed:
        for watcher in self.memory.watchers:
            watcher(block, draw, mixed)
        return mixed


@dataclass(frozen=True, kw_only=True, eq=False)
class BetaMixer(Mixer):
    """A mixer whose λ is drawn once per batch.

    Args:
        alpha: λ ~ Beta(alpha, alpha), > 0.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def draw_lam(self, layer: int, rng: np.random.Generator) -> float:
        """λ ~ Beta(α, α)."""
        return float(rng.beta(self.alpha, self.alpha))

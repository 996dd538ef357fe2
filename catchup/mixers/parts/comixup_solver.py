"""The masks of Co-Mixup: which input every block of every output shows, for several parts of a
batch at once.

Kim, Choo, Jeong & Song, "Co-Mixup: Saliency Guided Joint Mixup with Supermodular Diversity", ICLR
2021: its objective, improved output by output. Of output j, z_j is its labelling of the blocks by
inputs, o_j counts its blocks by input, v_j = Σ_{j'≠j} o_j' counts what the other outputs show. Less
is better:

    Σ_j Σ_k cost[z_jk, k] + β Σ_j (neighbours with unlike labels) + γ Σ_j Σ_i o_ji · h((A v_j)_i)

where h(v) = v if v > τ, else 0. The last sum is the paper's Σ_{j≠j'} o_j·A o_j', with its threshold
τ taken for each input: what the others show up to τ times may be shown freely.

What is exact and what is not: an expansion move (any blocks change to one label) is a binary cut,
solved exactly; the labelling of one output for fixed others ends where no such move lowers it
(Boykov, Veksler & Zabih, "Fast Approximate Energy Minimization via Graph Cuts", TPAMI 2001: at most
twice the least for costs ≥ 0). The outputs are labelled in turn, with the last sum made modular
(2γ·h per block). Every such labelling is taken, also where it raises the objective above: refusing
it gets stuck. The best of all labellings seen is kept, so that stopping at any time leaves nothing
worse than the start.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .graphcut import cheapest_rows, row_states


@dataclass(frozen=True, eq=False)
class Problem:
    """Parts of a batch, padded to one size. P parts, n inputs and as many outputs in each, g × g
    blocks.

    Args:
        cost: (P, n, g, g) floating and finite, of showing an input in a block.
        real: (P, n) bool, False where input and output are padding; in every part at least one is
            real.
        affinity: A, (P, n, n) floating ≥ 0, symmetric.
        beta, gamma: ≥ 0, per pair of neighbours, per block. tau: in blocks, ≥ 0.
    """

    cost: Tensor
    real: Tensor
    affinity: Tensor
    beta: float
    gamma: float
    tau: float


def counts(labels: Tensor, real: Tensor) -> Tensor:
    """o: blocks of each output by input, (P, n, n) float32, of labels (P, n, g, g) int64; 0 for
    padded outputs.
    """
    shown = F.one_hot(labels.flatten(2), real.shape[1]).sum(dim=2)
    return (shown * real[..., None]).float()


def overused(others: Tensor, problem: Problem) -> Tensor:
    """h(A v): (…, n) of v (…, n), parts first; what the other outputs show of each input, 0 up to
    τ.
    """
    weighted = (others.reshape(len(others), -1, others.shape[-1]) @ problem.affinity).reshape(
        others.shape
    )
    return torch.where(weighted > problem.tau, weighted, 0)


def diversity(shown: Tensor, problem: Problem) -> Tensor:
    """γ Σ_j o_j·h(A v_j), (P,), of o (P, n, n): how much the outputs show what others show."""
    return problem.gamma * (shown * overused(shown.sum(dim=1, keepdim=True) - shown, problem)).sum(
        dim=(1, 2)
    )


def labelling_energy(labels: Tensor, cost: Tensor, beta: float) -> Tensor:
    """Costs and unlike neighbours of one output per part, (P,): labels (P, g, g), cost (P, n, g,
    g).
    """
    total = cost.gather(1, labels[:, None]).sum(dim=(1, 2, 3))
    unlike = (labels[:, 1:] != labels[:, :-1]).sum(dim=(1, 2)) + (
        labels[..., 1:] != labels[..., :-1]
    ).sum(dim=(1, 2))
    return total + beta * unlike


class _Tables(NamedTuple):
    """For every state of a row of g bits, which of the move's costs apply."""

    bits: Tensor  # (g, S)
    unlike: Tensor  # (g − 1, S), both neighbours stay
    edge: Tensor  # (g, S), a block stays and a neighbour in the row moves (counted)
    unlike_below: Tensor  # (g, S·S), state below × state above
    edge_below: Tensor  # (2g, S·S), first the blocks above


@lru_cache(maxsize=8)
def _tables(side: int, dtype: torch.dtype, device: torch.device) -> _Tables:
    bits = row_states(side, 2, device).to(dtype).T  # (g, S)
    stay = 1 - bits
    edge = stay * (F.pad(bits[1:], (0, 0, 0, 1)) + F.pad(bits[:-1], (0, 0, 1, 0)))
    below, above = (
        bits[:, :, None].expand(-1, -1, bits.shape[1]),
        bits[:, None].expand(-1, bits.shape[1], -1),
    )
    edges = torch.cat([(1 - above) * below, above * (1 - below)])
    return _Tables(
        bits, stay[1:] * stay[:-1], edge, ((1 - above) * (1 - below)).flatten(1), edges.flatten(1)
    )


def best_expansion(labels: Tensor, cost: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """The best labelling that one expansion move leads to, among all labels and all sets of blocks;
    exact.

    Args:
        labels: (P, g, g) int64. cost: (P, n, g, g). beta: ≥ 0.
    Returns:
        (P, g, g) int64 and its energy, (P,); `labels` themselves if no move is better.
    """
    parts, side = cost.shape[0], cost.shape[2]
    table = _tables(side, cost.dtype, cost.device)
    stays = cost.gather(1, labels[:, None])  # (P, 1, g, g)
    useful = _useful(cost - stays, beta)  # (P, K)
    cost = cost[torch.arange(parts, device=cost.device)[:, None], useful]
    other = beta * (labels[:, None] != useful[..., None, None]).to(cost.dtype)
    across, down = (
        beta * (labels.narrow(axis, 1, side - 1) != labels.narrow(axis, 0, side - 1)).to(cost.dtype)
        for axis in (2, 1)
    )
    rows = (
        (cost - stays) @ table.bits
        + other @ table.edge
        + (stays.sum(dim=3, keepdim=True) + (across @ table.unlike)[:, None])
    )
    steps = torch.cat([other[:, :, :-1], other[:, :, 1:]], dim=3) @ table.edge_below
    steps = (
        (steps + (down @ table.unlike_below)[:, None])
        .flatten(0, 1)
        .unflatten(2, [table.bits.shape[1]] * 2)
    )
    states, energy = cheapest_rows(rows.flatten(0, 1), steps)
    energy, best = energy.reshape(parts, -1).min(dim=1, keepdim=True)
    chosen = states.reshape(parts, -1, side).gather(1, best[..., None].expand(-1, -1, side))[:, 0]
    moves = table.bits.T[chosen] > 0
    return torch.where(moves, useful.gather(1, best)[..., None], labels), energy[:, 0]


def _useful(change: Tensor, beta: float) -> Tensor:
    """Labels that an expansion may gain by, (P, K) int64: a block has at most four neighbours to
    agree with.

    `change` (P, n, g, g) is what each label costs more than the present one. K is the largest
    number in any part; the others' rows are filled up with labels by which nothing is gained.
    """
    useful = (change < 4 * beta).flatten(2).any(dim=2)
    return (
        useful.logical_not()
        .to(torch.int8)
        .argsort(dim=1, stable=True)[:, : max(int(useful.sum(dim=1).max()), 1)]
    )


def best_labelling(labels: Tensor, cost: Tensor, beta: float, moves: int = 64) -> Tensor:
    """A labelling that no expansion move betters, from `labels` or from each block's cheapest
    label.

    Args:
        labels: (P, g, g) int64. cost: (P, n, g, g). beta: ≥ 0. moves: at most so many.
    Returns:
        (P, g, g) int64, never of higher energy than `labels`; after `moves` moves the best so far.
    """
    cheapest = cost.argmin(dim=1)
    energy, other = labelling_energy(labels, cost, beta), labelling_energy(cheapest, cost, beta)
    labels, energy = (
        torch.where((other < energy)[:, None, None], cheapest, labels),
        torch.minimum(energy, other),
    )
    for _ in range(moves):
        moved, least = best_expansion(labels, cost, beta)
        better = least < energy - 1e-6 * (1 + energy.abs())  # not by rounding alone
        if not better.any():
            break
        labels, energy = (
            torch.where(better[:, None, None], moved, labels),
            torch.where(better, least, energy),
        )
    return labels


def solve(problem: Problem, labels: Tensor, sweeps: int) -> Tensor:
    """The masks: every output labelled anew in turn, `sweeps` times, or until a sweep changes
    nothing.

    Args:
        problem: see there. labels: (P, n, g, g) int64, where to start, real inputs only. sweeps: ≥
            0.
    Returns:
        (P, n, g, g) int64, of each part the labelling of least objective that was seen, the start
        included.
    """
    now, shown = labels.clone(), counts(labels, problem.real)
    cost = torch.where(
        problem.real[:, :, None, None], problem.cost, torch.finfo(problem.cost.dtype).max / 1e6
    )
    spread, best = diversity(shown, problem), labels.clone()
    excess = torch.zeros_like(spread)  # objective now, less the least seen
    for _ in range(sweeps):
        before = now.clone()
        for j in range(labels.shape[1]):
            spread, rise = _relabel(now, shown, spread, j, cost, problem)
            excess = excess + rise
            better = excess < 0
            best = torch.where(better[:, None, None, None], now, best)
            excess = excess.clamp_min(0)
        if torch.equal(now, before):
            break
    return best


def _relabel(
    labels: Tensor, shown: Tensor, spread: Tensor, j: int, cost: Tensor, problem: Problem
) -> tuple[Tensor, Tensor]:
    """Output j of every part labelled anew, in place; returns the new diversity and by how much the
    objective rose, (P,) each.
    """
    penalty = 2 * problem.gamma * overused(shown.sum(dim=1) - shown[:, j], problem)
    real, old = problem.real[:, j], labels[:, j].clone()
    new = best_labelling(old, cost + penalty[..., None, None], problem.beta)
    new = torch.where(real[:, None, None], new, old)
    labels[:, j] = new
    shown[:, j] = F.one_hot(new.flatten(1), shown.shape[2]).sum(dim=1) * real[:, None]
    after = diversity(shown, problem)
    rise = labelling_energy(new, cost, problem.beta) - labelling_energy(old, cost, problem.beta)
    return after, after - spread + rise

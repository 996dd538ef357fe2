"""Label problems on a grid, solved exactly: which label every block gets, so that the energy is the
lowest there is.

    E(l) = Σ_i unary[i, l_i] + Σ_{(i,j) neighbours} w_ij · |z_i − z_j|^power

with z = l / (K − 1) in {0, 1/(K−1), …, 1}

over the four-neighbourhood, w ≥ 0, power 1 or 2. Both ways below reach the minimum, not a local
one:

- `labels_by_rows`: dynamic programming from row to row over all K^W states of a row. For narrow
  grids; in torch on the unary costs' device, nothing waits for it. `cheapest_rows` underneath takes
  any pairwise costs.
- `labels_by_cut`: one minimum cut. Label l is written as K − 1 bits b_1 ≥ b_2 ≥ … (infinite arcs),
  l = b_1 + b_2 + … (Ishikawa, "Exact Optimization for Markov Random Fields with Convex Priors",
  TPAMI 2003); SciPy's maximum flow on the CPU, several images in one block-diagonal graph.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MAX_ROW_STATES = 128  # K^W up to which dynamic programming is taken: its cost grows with the square
# of one graph: a call costs as much as a small image's flow, a large graph more than its images
NODES_PER_FLOW = 2048
UNITS = 2**29  # bound of the sum of an int32 graph's capacities that leave the source
INFINITE = 2**30


def grid_labels(unary: Tensor, down: Tensor, right: Tensor, power: int = 2) -> Tensor:
    """The labels of least energy, by whichever exact way is the faster.

    Args:
        unary: (B, H, W, K) floating and finite, cost of each label in each block; K ≥ 2.
        down: (B, H − 1, W) floating, ≥ 0, weight between a block and the one below it.
        right: (B, H, W − 1), likewise for the one to its right.
        power: 1 or 2, of the distance of neighbouring labels.
    Returns:
        (B, H, W) int64 on the device of `unary`, labels 0 … K − 1. `labels_by_cut` says how exact.
    Raises:
        ValueError: if the shapes do not fit together or `power` is neither 1 nor 2.
    """
    narrow = unary.shape[-1] ** unary.shape[2] <= MAX_ROW_STATES
    return (labels_by_rows if narrow else labels_by_cut)(unary, down, right, power)


# -- narrow grids: dynamic programming over rows ---------------------------------------------------


def row_states(width: int, n_labels: int, device: torch.device | str = "cpu") -> Tensor:
    """Every labelling of a row, (K^W, W) int64, row s of the table is the number s in base K."""
    powers = n_labels ** torch.arange(width - 1, -1, -1, device=device)
    return torch.arange(n_labels**width, device=device)[:, None] // powers % n_labels


def cheapest_rows(row_cost: Tensor, step_cost: Tensor) -> tuple[Tensor, Tensor]:
    """The chain of states with the least sum of costs (Viterbi, "Error bounds for convolutional
    codes", 1967).

    Args:
        row_cost: (N, H, S) floating, cost of each of S states in each of H rows.
        step_cost: (N, H − 1, S, S), cost of state s in a row (third axis) below state t (fourth).
    Returns:
        (N, H) int64, the states, and (N,), their cost. Exact up to the rounding of the floating
        sums.
    """
    best, came_from = row_cost[:, 0], []
    for row in range(1, row_cost.shape[1]):
        best, origin = (best[:, None] + step_cost[:, row - 1]).min(dim=2)
        best = best + row_cost[:, row]
        came_from.append(origin)
    least, last = best.min(dim=1)
    states = [last[:, None]]
    for origin in reversed(came_from):
        states.append(origin.gather(1, states[-1]))
    return torch.cat(states[::-1], dim=1), least


def labels_by_rows(unary: Tensor, down: Tensor, right: Tensor, power: int = 2) -> Tensor:
    """As `grid_labels`, by dynamic programming over the K^W labellings of a row, in float32
    (float64 stays).

    Memory grows with B · (H − 1) · K^(2W).
    """
    _check(unary, down, right, power)
    batch, height, width, n_labels = unary.shape
    unary, down, right = (_at_least_float32(part) for part in (unary, down, right))
    states = row_states(width, n_labels, unary.device)
    z = states.to(unary.dtype) / (n_labels - 1)
    chosen = torch.nn.functional.one_hot(states, n_labels).to(unary.dtype).flatten(1)  # (S, W·K)
    within = (z[:, 1:] - z[:, :-1]).abs() ** power  # (S, W − 1)
    between = ((z[:, None] - z[None]).abs() ** power).flatten(0, 1)  # (S·S, W)
    with torch.autocast(unary.device.type, enabled=False):
        row_cost = unary.flatten(2) @ chosen.T + right @ within.T
        step_cost = (down @ between.T).reshape(batch, height - 1, len(states), len(states))
    return states[cheapest_rows(row_cost, step_cost)[0]]


# -- wide grids: minimum cut -----------------------------------------------------------------------


def labels_by_cut(unary: Tensor, down: Tensor, right: Tensor, power: int = 2) -> Tensor:
    """As `grid_labels`, by a minimum cut with integer capacities.

    Costs are rounded to multiples of 1/scale, `scale` as `capacity_scale` gives it for each image,
    so that the energy exceeds the least by at most (number of arcs)/scale. Where several labellings
    are the least of the rounded problem, the one with the lowest labels is returned. The costs are
    copied to the CPU.
    """
    _check(unary, down, right, power)
    batch, height, width, n_labels = unary.shape
    problem = [part.detach().to("cpu", torch.float64).numpy() for part in (unary, down, right)]
    if not all(np.isfinite(part).all() for part in problem):
        raise ValueError("costs and weights must be finite")
    ones, arcs = _bits(problem[0], problem[1], problem[2], power)
    per_flow = _images_per_flow(ones)
    parts = [
        _cut(
            ones[start : start + per_flow],
            arcs[start : start + per_flow],
            (height, width, n_labels - 1, power),
        )
        for start in range(0, batch, per_flow)
    ]
    bits = np.concatenate(parts).reshape(batch, height, width, n_labels - 1)
    return torch.from_numpy(bits.sum(axis=-1)).to(unary.device)


def capacity_scale(ones: np.ndarray, arcs: np.ndarray) -> np.ndarray:
    """Units per cost, (B,) float64: the largest for which the capacities of a full graph fit in
    int32.

    Args:
        ones: (B, n) cost of setting each bit. arcs: (B, m) weights between bits, ≥ 0.
    """
    total = np.abs(ones).sum(axis=1) + arcs.sum(axis=1)
    return UNITS / _images_per_flow(ones) / np.where(total > 0, total, 1)


def _images_per_flow(ones: np.ndarray) -> int:
    return max(NODES_PER_FLOW // ones.shape[1], 1)


def _bits(
    costs: np.ndarray, down: np.ndarray, right: np.ndarray, power: int
) -> tuple[np.ndarray, np.ndarray]:
    """The problem in bits: min Σ ones·b + Σ arcs·|b − b'|; ones (B, H·W·L), arcs (B, m) in the
    order of `_Graph.ends`.

    For power 1 equal bits of neighbours are joined. For power 2 all are: Σ_{a,b} |b_ia − b_jb| =
    (l_i − l_j)² plus L·l − l² for either block, which is taken off its unary cost.
    """
    bits = costs.shape[-1] - 1
    weight = [part / bits**power for part in (down, right)]
    if power == 2:
        label, touching = np.arange(bits + 1), np.zeros(costs.shape[:3])
        touching[:, :-1] += weight[0]
        touching[:, 1:] += weight[0]
        touching[:, :, :-1] += weight[1]
        touching[:, :, 1:] += weight[1]
        costs = costs + touching[..., None] * (label**2 - bits * label)
    copies = bits**power
    arcs = [np.repeat(part.reshape(len(costs), -1), copies, axis=1) for part in weight]
    return np.diff(costs, axis=-1).reshape(len(costs), -1), np.concatenate(arcs, axis=1)


class _Graph(NamedTuple):
    """The arcs of several equal grids in one graph: bits in order, then the source, then the
    sink.
    """

    order: np.ndarray  # where the capacities (as `_cut` lists them) go in the sparse matrix
    indices: np.ndarray
    indptr: np.ndarray


@lru_cache(maxsize=32)
def _graph(count: int, height: int, width: int, bits: int, power: int) -> _Graph:
    """The sparse structure for `count` grids; capacities are listed: bits to sink, source to bits,
    arcs, back, ∞.
    """
    node = np.arange(count * height * width * bits).reshape(count, height, width, bits)
    ends = []
    for one, other in ((node[:, :-1], node[:, 1:]), (node[:, :, :-1], node[:, :, 1:])):
        if power == 2:
            one, other = np.broadcast_arrays(one[..., :, None], other[..., None, :])
        ends.append([one.reshape(count, -1), other.reshape(count, -1)])
    start, stop = (np.concatenate(part, axis=1).ravel() for part in zip(*ends))
    source, sink, every = (
        np.full(node.size, node.size),
        np.full(node.size, node.size + 1),
        node.ravel(),
    )
    rows = np.concatenate([every, source, start, stop, node[..., 1:].ravel()])
    columns = np.concatenate([sink, every, stop, start, node[..., :-1].ravel()])
    from scipy.sparse import csr_matrix

    numbered = csr_matrix(
        (np.arange(1, len(rows) + 1), (rows, columns)), shape=(node.size + 2,) * 2
    )
    numbered.sort_indices()
    return _Graph(numbered.data - 1, numbered.indices, numbered.indptr)


def _cut(ones: np.ndarray, arcs: np.ndarray, grid: tuple[int, int, int, int]) -> np.ndarray:
    """The bits, bool (B·n,), of the least cut of these grids, in one flow: a bit is set on the
    source's side.
    """
    from scipy.sparse import csr_matrix  # here: importing the package stays light
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    count, scale = len(ones), capacity_scale(ones, arcs)[:, None]
    ones, arcs = np.rint(ones * scale).ravel(), np.rint(arcs * scale).ravel()
    infinite = np.full(ones.size * (grid[2] - 1) // grid[2], INFINITE)
    capacities = np.concatenate(
        [np.maximum(ones, 0), np.maximum(-ones, 0), arcs, arcs, infinite]
    ).astype(np.int32)
    order, indices, indptr = _graph(count, *grid)
    source, sink = ones.size, ones.size + 1
    graph = csr_matrix((capacities[order], indices, indptr), shape=(sink + 1, sink + 1))
    left = graph - maximum_flow(graph, source, sink).flow  # what every arc can still carry
    left.eliminate_zeros()
    reached = np.zeros(sink + 1, dtype=bool)
    reached[breadth_first_order(left, source, return_predecessors=False)] = True
    return reached[:source]


def _check(unary: Tensor, down: Tensor, right: Tensor, power: int) -> None:
    if unary.ndim != 4 or unary.shape[-1] < 2 or 0 in unary.shape:
        raise ValueError(
            f"unary must be (B, H, W, K ≥ 2), none of them empty, got {tuple(unary.shape)}"
        )
    batch, height, width, _ = unary.shape
    if down.shape != (batch, height - 1, width) or right.shape != (batch, height, width - 1):
        raise ValueError(
            f"for {height}×{width} blocks the weights must be {(batch, height - 1, width)} and "
            f"{(batch, height, width - 1)}, got {tuple(down.shape)} and {tuple(right.shape)}"
        )
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2, got {power}")


def _at_least_float32(values: Tensor) -> Tensor:
    return values.detach().to(torch.promote_types(values.dtype, torch.float32))

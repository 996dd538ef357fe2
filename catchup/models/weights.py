"""Trained weights as small files: half precision, in shards of less than a megabyte, with a card.

NAME.0.safetensors, NAME.1.safetensors, …   the tensors in their order, float16 where they were
                                            floating; the first holds the card

Where it misleads: half precision rounds every weight to eleven bits. Batch norm's statistics keep
float32, for their small values would vanish; what a network answers changes in the fourth digit.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

SHARD_BYTES = 900_000
CARD = "card"


def save_weights(state: Mapping[str, Tensor], folder: Path, name: str, card: Mapping) -> list[Path]:
    """Writes a model's state in shards.

    Args:
        state: of `model.state_dict()`.
        folder: where; made if needed.
        name: of the network; older shards of this name are replaced.
        card: what it is: command, commit, seed, errors; values for JSON.
    Returns:
        The files, in order.
    Raises:
        ValueError: if a single tensor does not fit into a shard.
    """
    from safetensors.torch import save_file

    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES
    for key, value in state.items():
        small = _as_half(key, value.detach().cpu()).contiguous()
        if small.nbytes > SHARD_BYTES:
            raise ValueError(
                f"{key} has {small.nbytes} bytes in half precision, more than a shard's"
                f" {SHARD_BYTES}"
            )
        if small.nbytes > room:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][key] = small
        room -= small.nbytes
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in _shards_of(folder, name):
        stale.unlink()
    files = [folder / f"{name}.{number}.safetensors" for number in range(len(shards))]
    for number, (file, shard) in enumerate(zip(files, shards)):
        save_file(shard, file, {CARD: json.dumps(dict(card))} if number == 0 else None)
    return files


def load_weights(folder: Path, name: str) -> tuple[dict[str, Tensor], dict]:
    """The state that `save_weights` stored, floating tensors as float32, and its card.

    Raises:
        FileNotFoundError: if there is no such network, with the names that there are.
    """
    from safetensors import safe_open

    files = _shards_of(Path(folder), name)
    if not files:
        known = sorted({path.name.split(".")[0] for path in Path(folder).glob("*.0.safetensors")})
        raise FileNotFoundError(
            f"no weights {name!r} in {folder}; there are {', '.join(known) or 'none'}"
        )
    state: dict[str, Tensor] = {}
    card: dict = {}
    for file in files:
        with safe_open(file, "pt") as shard:
            card.update(json.loads((shard.metadata() or {}).get(CARD, "{}")))
            for key in shard.keys():
                value = shard.get_tensor(key)
                state[key] = value.float() if value.is_floating_point() else value
    return state, card


def _as_half(key: str, value: Tensor) -> Tensor:
    """Half precision, but for whole numbers and the statistics of batch norm."""
    if not value.is_floating_point() or key.endswith(("running_mean", "running_var")):
        return value
    return value.to(torch.float16)


def _shards_of(folder: Path, name: str) -> list[Path]:
    found = folder.glob(f"{name}.*.safetensors")
    return sorted(found, key=lambda path: int(path.name.split(".")[-2]))

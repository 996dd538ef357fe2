"""Trained networks that come with the package: small ResNets on digits and on shapes.

NAME is DATA-METHOD, or DATA-METHOD-epochN for the same run after N of its epochs. The weights and
cards lie beside this file (`weights.py` has the form); `python -m benchmarks.trained_weights` made
them.

Where it misleads: each is one run of one seed. They show what a trained network looks like; which
method is better takes more runs. And those of shapes95 that mix are still learning: their cards
tell how many of their training images they get wrong.
"""

from pathlib import Path

from torch import nn

from ..utils.choices import pick
from .registry import create
from .weights import load_weights

WEIGHTS = Path(__file__).with_name("trained_weights")


def trained_names() -> list[str]:
    """The names that `trained` takes."""
    return sorted(path.name.split(".")[0] for path in WEIGHTS.glob("*.0.safetensors"))


def trained_card(name: str) -> dict:
    """Where a trained network comes from, and what it errs.

    Args:
        name: one of `trained_names()`.
    Returns:
        "settings" of the run, for `catchup.Settings(**…)` (those left out have their defaults);
        "network", what `create` was given; "epoch" of the weights; "command", "commit", "versions"
        and "hardware" of the training; clean_train_error, top1_error, fgsm_error (4/255) and
        without_strongest (accuracy without the strongest 20 % of the features), in percent, of the
        weights in half precision; "sha256" of those in float32.
    Raises:
        ValueError: for an unknown name, with those there are.
    """
    return load_weights(WEIGHTS, pick("trained network", name, trained_names()))[1]


def trained(name: str) -> nn.Module:
    """A trained network, in evaluation mode.

    Args:
        name: one of `trained_names()`, such as "digits-catchup" or "shapes95-baseline-epoch20".
    Returns:
        The module: images (B, C, H, W) float32, normalised as its data set is (the settings of
        `trained_card` say which), to logits (B, classes). The weights were rounded to half
        precision; they are float32 here.
    Raises:
        ValueError: for an unknown name, with those there are.
    """
    state, card = load_weights(WEIGHTS, pick("trained network", name, trained_names()))
    network = dict(card["network"])
    model = create(network.pop("name"), **network)
    model.load_state_dict(state)
    return model.eval()


def trained_course(run: str) -> dict[int, nn.Module]:
    """The networks of one run by epoch, ascending, the finished one last.

    Args:
        run: the name of a finished network, such as "shapes95-baseline".
    Raises:
        ValueError: as `trained`.
    """
    kept = [name for name in trained_names() if name.startswith(f"{run}-epoch")] + [run]
    networks = {trained_card(name)["epoch"]: trained(name) for name in kept}
    return dict(sorted(networks.items()))

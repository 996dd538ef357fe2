"""What a model goes by on `shapes`: accuracy where the background helps, says nothing, and lies.

On `shapes` (see `catchup.data.sets.shapes`) the background tells the class in a share ρ of the
training images. The three test sets show the same scenes with a background that always does, that
is drawn at random, and that always names another class.
"""

from collections.abc import Mapping

from torch import Tensor

from ..data import Dataset, Images
from ..data.sets.readers import parse_shapes_bias
from ..data.sets.shapes import KINDS, SIDE, test_sets
from ..models.inference import PixelModel, predict, top_k_error

SCENES_SEED = 0  # of the test scenes: the same for every model


def measure_cues(model: PixelModel, train: Images, sets: Mapping[str, Images]) -> dict[str, float]:
    """Accuracies in percent.

    Args:
        model: in evaluation mode here, and left as it was. On the device of the images.
        train: the training images, classified without augmentation.
        sets: as `test_sets` returns them.
    Returns:
        train_accuracy; kept_accuracy, broken_accuracy, reversed_accuracy; and cue_followed, the
        percentage of the reversed images that are called by the class of their background (a model
        without any idea: 12.5).
    """
    said = {name: predict(model, images) for name, images in sets.items()}
    row = {"train_accuracy": _accuracy(predict(model, train), train.labels)}
    row |= {
        f"{name}_accuracy": _accuracy(said[name], images.labels) for name, images in sets.items()
    }
    followed = _accuracy(said["reversed"], (sets["reversed"].labels + 1) % KINDS)
    return row | {"cue_followed": followed}


def cue_sets(dataset: Dataset) -> dict[str, Images]:
    """The three test sets of the scenes that `dataset` is tested on, on its device.

    Raises:
        ValueError: as `check_cues`.
    """
    check_cues(dataset)
    _, cue = parse_shapes_bias(dataset.name.partition(":")[2] or None)
    sets = test_sets(len(dataset.test), SCENES_SEED, cue)
    device = dataset.train.labels.device
    return {name: images.to(device) for name, images in sets.items()}


def check_cues(dataset: Dataset) -> None:
    """ValueError unless these are shapes, in their own size."""
    shape, own = tuple(dataset.test.shape), (3, SIDE, SIDE)
    if dataset.name.partition(":")[0] != "shapes" or shape != own:
        raise ValueError(
            "the test 'cues' needs shapes on a background that may tell the class (shapes,"
            f" shapes:RHO or shapes:RHO:CUE) of {own}, and {dataset.name} has images of {shape}:"
            " leave this test out"
        )


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    return 100 - top_k_error(logits, labels)

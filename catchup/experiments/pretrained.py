"""Evaluations of models with torchvision's ImageNet weights, which were not trained here."""

from collections.abc import Sequence
from pathlib import Path

from .. import models
from ..data import Augmentation, Dataset, load_images
from ..data.identity import identify
from ..data.protocol import NORMALISATIONS
from ..measures.registry import select_tests, tests_that_need
from ..measures.subject import Options, load_outside
from ..training.folder import EVALUATION
from ..utils.choices import pick
from ..utils.files import check_folder_place
from ..utils.schema import read_evaluation
from .evaluation import device_named, evaluation_of, merge_evaluation


def evaluate_pretrained(
    model: str,
    data: str,
    out: str | Path,
    tests: Sequence[str] = ("clean", "feature-drop"),
    *,
    options: Options | None = None,
    data_dir: str = "data",
    image_size: int = 256,
    window: int = 224,
    device: str = "auto",
    progress: bool = True,
) -> dict:
    """Evaluates a model with torchvision's ImageNet weights, as in Figure 6 of the paper, and
    leaves `evaluation.json`.

    Args:
        model: "torchvision.resnet50", for example; its weights are downloaded once (see
            `catchup.models.create`).
        data: the test images: imagenet, imagenet:PATH, or another set of ImageNet's 1000 classes in
            the order of their WordNet ids. Training images are not read.
        out: the folder for evaluation.json, new or empty, or one that an earlier call has filled
            for the same model.
        tests: some of `TESTS` but those that need training images. options: of the tests.
        data_dir: where data sets are kept. image_size, window: pixels; the shorter side, and the
            middle square of it.
        device, progress: as for `evaluate`.
    Returns:
        What was written: as `evaluate`, with the method "pretrained" and no seed.
    Raises:
        ValueError: for an unknown test, model or data set, one that does not fit, or a folder that
            holds something else; FileNotFoundError if the data are not there. Nothing is written
            then.
    """
    out, asked, options = Path(out), select_tests(tests), options or Options()
    pick("device", device, ("auto", "cpu"))
    if refused := tests_that_need("training", asked):
        raise ValueError(
            f"the test {refused[0]!r} needs training images, which are not read here: leave it out"
        )
    _check_place(out, model)
    images = load_images(data, data_dir, image_size=image_size, window=window, progress=progress)
    if len(images.classes) != models.IMAGENET_CLASSES:
        raise ValueError(
            f"{data} has {len(images.classes)} classes, and the weights of {model} know ImageNet's "
            f"{models.IMAGENET_CLASSES}, by their order: give a folder that holds every one of them"
        )
    mean, std = NORMALISATIONS["imagenet"]
    dataset, place = Dataset(data, images, images, mean, std, Augmentation()), device_named(device)
    network = models.create(model, num_classes=len(images.classes), pretrained=True).to(place)
    outside = None
    if tests_that_need("outside", asked):
        outside = load_outside(options, data_dir, dataset, progress)
    head = {
        "method": "pretrained",
        "method_settings": {},
        "seed": None,
        "data": data,
        "subset": None,
        "model": model,
        "width": None,
        "settings": None,
        "epochs": None,
        "finished": True,
        "image_size": image_size,
        "window": window,
    }
    head["identity"] = identify(dataset).as_dict()
    found = evaluation_of(
        network, dataset, asked, options=options, outside=outside, progress=progress
    )
    out.mkdir(parents=True, exist_ok=True)
    return merge_evaluation(out, {**head, **found}, asked, (*head, "n_test"), {})


def _check_place(out: Path, model: str) -> None:
    """ValueError unless `out` may hold the evaluation of this pretrained model."""
    check_folder_place(out, "the evaluation")
    if not out.is_dir() or all(path.name.startswith(".") for path in out.iterdir()):
        return
    held = read_evaluation(out / EVALUATION) if (out / EVALUATION).is_file() else {}
    if (held.get("method"), held.get("model")) != ("pretrained", model):
        raise ValueError(
            f"{out} holds something else than the evaluation of {model}; give a new or an empty"
            " folder"
        )

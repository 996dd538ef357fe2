"""What is measured, and what the tests may be told."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ..data import Dataset, Images, load_images, subset
from ..models.inference import PixelModel, predict

SAMPLE_SEED = 0  # of the part of the test images that the slow tests take: the same for every model


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the tests may be told; recorded beside what they found.

    Args:
        eps_255: fgsm, pgd and attacks: radius of the ball in 1/255 of the pixel range.
        pgd_steps: PGD: gradient steps.
        pgd_step_size_255: PGD: length of one step, in 1/255.
        apgd_steps: attacks: gradient steps of Auto-PGD.
        square_queries: attacks: answers that Square asks for, of each image.
        sample: fgsm, pgd, attacks, occlusion, frequencies, deformation and generated corruptions:
            so many test images of each class, always the same ones, instead of all.
        interpolation: deformation: bilinear (ours; the paper does not say) or nearest (Manifold
            Mixup's code).
        ood: ood: the images from elsewhere, a data set or folder:PATH; brought to the size of the
            test images. imagenet-o has its own protocol, with ImageNet inside.
        cifar_c_dir: corruption: folder of the published CIFAR-100-C arrays. None: those in the data
            folder where they are (see `with_published`); else the corruptions are generated.
        cache: corruption: folder that keeps the generated images; without it they are generated
            anew for every model.
        bins: calibration: of the confidence.
        cam_threshold: localization: share of the map's maximum above which a pixel belongs to the
            object.
        landscape_images: landscape: training images on which the loss is looked at, balanced over
            the classes.
        landscape_points: landscape: points along each line.
        landscape_grid: landscape: points a side of the 2-D surface; 0 leaves it out.
        occlusion_patches: occlusion: patches a side of the grid.
        frequency_norm: frequencies: l2 norm of the wave in each channel, pixels being in [0, 1].
        frequency_side: frequencies: side of the square of frequencies around zero, odd.
        hessian_probes: landscape: random vectors for the trace of the Hessian.
    """

    eps_255: float = 4.0
    pgd_steps: int = 10
    pgd_step_size_255: float = 1.0
    apgd_steps: int = 100
    square_queries: int = 5000
    sample: int | None = None
    interpolation: str = "bilinear"
    ood: str | None = None
    cifar_c_dir: Path | None = None
    cache: Path | None = None
    bins: int = 15
    cam_threshold: float = 0.2
    landscape_images: int = 500
    landscape_points: int = 21
    landscape_grid: int = 0
    occlusion_patches: int = 8
    frequency_norm: float = 4.0
    frequency_side: int = 31
    hessian_probes: int = 10


@dataclass
class Subject:
    """A model and what it is measured on.

    Args:
        model: from images in [0, 1] to logits, in evaluation mode during every test.
        dataset: on the model's device.
        options: for the tests.
        outside: images from elsewhere, for `ood`; None if there are none.
        progress: bars on standard error.
    """

    model: PixelModel
    dataset: Dataset
    options: Options = Options()
    outside: Images | None = None
    progress: bool = False

    @property
    def images(self) -> Images:
        """All test images."""
        return self.dataset.test

    @cached_property
    def sample(self) -> Images:
        """The test images that the slow tests take."""
        amount = self.options.sample
        return self.images if amount is None else subset(self.images, amount, SAMPLE_SEED)

    @cached_property
    def logits(self) -> Tensor:
        """(N, classes) of all test images, computed once for all tests that need them."""
        return predict(self.model, self.images)


def load_outside(
    options: Options, data_dir: str, dataset: Dataset, progress: bool
) -> Images | None:
    """The images from elsewhere that the options name, with the size and the channels of those that
    the model knows.

    Args:
        options: `ood` is read.
        data_dir: where data sets are kept.
        dataset: what the model was trained on.
        progress: bars on standard error.
    Returns:
        On the CPU; None if the options name none.
    Raises:
        ValueError, FileNotFoundError: as `catchup.data.load_images`.
    """
    if options.ood is None:
        return None
    whole, seen = (images.shape[1] for images in (dataset.train, dataset.test))
    images = load_images(
        options.ood,
        data_dir,
        image_size=whole,
        window=None if seen == whole else seen,
        progress=progress,
    )
    return images.with_channels(dataset.test.shape[0])

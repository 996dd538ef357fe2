"""What can be measured of a trained model: each test by its name, the fields that it fills, and how
it was measured.

A new measurement is a function from a `Subject` to values, and one entry of `MEASURES`. The
evaluation object, the comparison, the command line and the report all read this table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from ..data import Images
from ..inspection.reliance import reliance_record
from ..models.inference import top_k_error
from ..utils.choices import pick
from .attacks import check_classes, measure_attacks
from .calibration import measure_calibration
from .confidence import measure_confidence
from .corruption import check_published, corruption_errors
from .cues import check_cues, cue_sets, measure_cues
from .deformation import DEFORMATIONS, deformation_accuracies
from .feature_drop import feature_drop_curve
from .frequencies import check_waves, frequency_errors
from .landscape import measure_landscape
from .localization import measure_localization
from .occlusion import check_patches, occlusion_curve
from .ood import measure_imagenet_o, measure_ood
from .outside import measure_outside
from .robustness import Attack, attack_error, fgsm, pgd
from .subject import SAMPLE_SEED, Options, Subject


@dataclass(frozen=True)
class Measure:
    """One test.

    Args:
        fields: the keys of the evaluation object that it fills.
        run: their values, from a subject.
        how: names of the options that decide the values.
        columns: what a comparison shows of it: field, or field and key joined by a dot, to its
            heading.
        check: raises ValueError, before anything is measured, for a subject that it cannot take.
        needs: beside a model and test images: "outside" images, the "training" images.
    """

    fields: tuple[str, ...]
    run: Callable[[Subject], Sequence]
    how: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Subject], None] = lambda subject: None
    needs: tuple[str, ...] = ()

    def settings(self, options: Options) -> dict:
        """The options that decide the values, ready for JSON."""
        values = asdict(options)
        return {
            name: str(value) if isinstance(value := values[name], Path) else value
            for name in self.how
        }


def select_tests(tests: Sequence[str]) -> list[str]:
    """The tests asked for, each once, in the order of `MEASURES`: the quick ones refuse a model
    first.

    Raises:
        ValueError: if none is named, or one is unknown.
    """
    if isinstance(tests, str) or not tests:
        raise ValueError(f"no test was named; choose some of: {', '.join(MEASURES)}")
    asked = {pick("test", test, MEASURES) for test in tests}
    return [test for test in MEASURES if test in asked]


def tests_that_need(what: str, tests: Sequence[str]) -> list[str]:
    """Those of the tests that need it (see `Measure.needs`)."""
    return [test for test in tests if what in MEASURES[test].needs]


def columns(tests: Sequence[str]) -> dict[str, str]:
    """The columns that a comparison shows of these tests.

    Raises:
        ValueError: as `select_tests`.
    """
    return {
        key: heading
        for test in select_tests(tests)
        for key, heading in MEASURES[test].columns.items()
    }


def measure(subject: Subject, tests: Sequence[str]) -> dict:
    """The fields of these tests, None for those of the others, and `measured_with`: {test: its
    settings}.

    Raises:
        ValueError: as `select_tests` and as the tests do; all of them are asked before the
            first one runs.
    """
    asked = select_tests(tests)
    for test in asked:
        MEASURES[test].check(subject)
    row: dict = dict.fromkeys(name for measure in MEASURES.values() for name in measure.fields)
    for test in asked:
        row |= zip(MEASURES[test].fields, MEASURES[test].run(subject), strict=True)
    return row | {
        "measured_with": {test: MEASURES[test].settings(subject.options) for test in asked}
    }


def _clean(subject: Subject) -> list[float]:
    return [top_k_error(subject.logits, subject.images.labels, k) for k in (1, 5)]


def _feature_drop(subject: Subject) -> list[Mapping]:
    return [feature_drop_curve(subject.model, subject.images)]


def _calibration(subject: Subject) -> list[Mapping]:
    return [measure_calibration(subject.logits, subject.images.labels, n_bins=subject.options.bins)]


def _confidence(subject: Subject) -> list[Mapping]:
    told = {"n_bins": subject.options.bins}
    return [measure_confidence(subject.logits, subject.images.labels, **told)]


def _outside(subject: Subject) -> list[Mapping]:
    training = as_tested(subject)
    return [measure_outside(subject.model, subject.images, subject.outside, training)]


def _reliance(subject: Subject) -> list[Mapping]:
    return [reliance_record(subject.model, subject.images)]


def _ood(subject: Subject) -> list[Mapping]:
    named = (subject.options.ood or "").partition(":")[0]
    # a protocol of its own: see there
    measure = measure_imagenet_o if named == "imagenet-o" else measure_ood
    return [measure(subject.model, subject.images, subject.outside)]


def _check_ood(subject: Subject) -> None:
    if subject.outside is None:
        raise ValueError(
            "the tests 'ood' and 'outside' need images from elsewhere: name a data set or"
            " folder:PATH with --ood, or leave them out"
        )
    ours, theirs = (images.shape for images in (subject.images, subject.outside))
    if ours != theirs:
        raise ValueError(
            f"the test images of {subject.dataset.name} are {ours} and those from elsewhere"
            f" ({subject.options.ood or 'outside'}) {theirs} (C, H, W), so that this alone would"
            " tell them apart: read the latter with catchup.data.load_images(…,"
            f" image_size={ours[1]}), and .with_channels({ours[0]})"
        )


def _check_outside(subject: Subject) -> None:
    _check_ood(subject)
    if (subject.options.ood or "").partition(":")[0] == "imagenet-o":
        raise ValueError(
            "imagenet-o has a protocol of its own, by the softmax: measure it with the test 'ood'"
        )


def _localization(subject: Subject) -> list[Mapping]:
    images, boxes, threshold = subject.images, subject.dataset.boxes, subject.options.cam_threshold
    told = {"threshold": threshold, "progress": subject.progress}
    return [measure_localization(subject.model, images, boxes, **told)]


def _check_boxes(subject: Subject) -> None:
    if not subject.dataset.boxes:
        raise ValueError(
            f"the test 'localization' needs boxes around the objects, and {subject.dataset.name}"
            " has none (tiny-imagenet, cub200, cars196 and aircraft have): leave this test out"
        )


def _cues(subject: Subject) -> list[Mapping]:
    return [measure_cues(subject.model, subject.dataset.train, cue_sets(subject.dataset))]


def _deformation(subject: Subject) -> list[Mapping]:
    told = {"progress": subject.progress, "interpolation": subject.options.interpolation}
    return [deformation_accuracies(subject.model, subject.sample, **told)]


def _fgsm(subject: Subject) -> list[float]:
    return _error_under(subject, partial(fgsm, eps_255=subject.options.eps_255), "fgsm")


def _pgd(subject: Subject) -> list[float]:
    options = subject.options
    attack = partial(
        pgd,
        eps_255=options.eps_255,
        steps=options.pgd_steps,
        step_255=options.pgd_step_size_255,
        # random starts: the same for every model on the same images
        generator=torch.Generator().manual_seed(SAMPLE_SEED),
    )
    return _error_under(subject, attack, "pgd")


def _attacks(subject: Subject) -> list[Mapping]:
    options = subject.options
    told = {
        "eps_255": options.eps_255,
        "steps": options.apgd_steps,
        "queries": options.square_queries,
    }
    return [measure_attacks(subject.model, subject.sample, progress=subject.progress, **told)]


def _error_under(subject: Subject, attack: Attack, name: str) -> list[float]:
    told = {"progress": subject.progress, "name": name}
    return [attack_error(subject.model, subject.sample, attack, **told)]


def _occlusion(subject: Subject) -> list[Mapping]:
    told = {"patches": subject.options.occlusion_patches, "progress": subject.progress}
    return [occlusion_curve(subject.model, subject.sample, **told)]


def _frequencies(subject: Subject) -> list[Mapping]:
    options = subject.options
    told = {"norm": options.frequency_norm, "side": options.frequency_side}
    return [frequency_errors(subject.model, subject.sample, progress=subject.progress, **told)]


def _check_frequencies(subject: Subject) -> None:
    options = subject.options
    check_waves(subject.images.shape[1:], options.frequency_norm, options.frequency_side)


def _landscape(subject: Subject) -> list[Mapping]:
    options = subject.options
    told = {
        "n_images": options.landscape_images,
        "points": options.landscape_points,
        "n_probes": options.hessian_probes,
        "grid_points": options.landscape_grid,
    }
    return [measure_landscape(subject.model, as_tested(subject), progress=subject.progress, **told)]


def as_tested(subject: Subject) -> Images:
    """The training images as the model sees test images."""
    return subject.dataset.train.centre_crop(subject.images.shape[1:])


def _check_published(subject: Subject) -> None:
    if subject.options.cifar_c_dir is not None:
        check_published(subject.options.cifar_c_dir, subject.images)


def _corruption(subject: Subject) -> list[Mapping]:
    cache, published = subject.options.cache, subject.options.cifar_c_dir
    # the published arrays are of all test images
    images = subject.images if published else subject.sample
    told = {"cache": cache, "published": published, "progress": subject.progress}
    return [corruption_errors(subject.model, images, **told)]


# in the order in which they run: what refuses a model quickly comes before minutes of work
MEASURES: dict[str, Measure] = {
    "clean": Measure(
        ("top1_error", "top5_error"),
        _clean,
        columns={
            "top1_error": "top-1 error, last epoch",
            "best_error": "best epoch",
            "median10_error": "median of the last ten",
        },
    ),
    "feature-drop": Measure(
        ("feature_drop",),
        _feature_drop,
        columns={"without_strongest": "accuracy without the strongest 20 %"},
    ),
    "calibration": Measure(("calibration",), _calibration, ("bins",), {"calibration.ece": "ECE"}),
    "confidence": Measure(
        ("confidence",),
        _confidence,
        ("bins",),
        {
            "confidence.brier": "Brier score",
            "confidence.nll": "negative log likelihood",
            "confidence.scaled.ece": "ECE at a fitted temperature",
            "confidence.aurc": "AURC",
        },
    ),
    "reliance": Measure(
        ("reliance",),
        _reliance,
        columns={"reliance.top10_share": "share of the strongest tenth, mean of the blocks"},
    ),
    "ood": Measure(
        ("ood",),
        _ood,
        ("ood",),
        {
            "ood.fpr95": "OOD FPR95",
            "ood.auroc": "OOD AUROC",
            "ood.aupr": "OOD AUPR",
            "ood.aupr_chance": "AUPR by chance",
        },
        check=_check_ood,
        needs=("outside",),
    ),
    "outside": Measure(
        ("outside",),
        _outside,
        ("ood",),
        {
            f"outside.{score}.auroc": f"AUROC by {words}"
            for score, words in (
                ("energy", "energy"),
                ("max_logit", "the largest logit"),
                ("neighbours", "nearest neighbours"),
            )
        },
        check=_check_outside,
        needs=("outside", "training"),
    ),
    "cues": Measure(
        ("cues",),
        _cues,
        needs=("training",),
        columns={
            "cues.train_accuracy": "training images, accuracy",
            "cues.kept_accuracy": "cue kept, accuracy",
            "cues.broken_accuracy": "cue broken, accuracy",
            "cues.reversed_accuracy": "cue reversed, accuracy",
            "cues.cue_followed": "reversed, cue followed",
        },
        check=lambda subject: check_cues(subject.dataset),
    ),
    "localization": Measure(
        ("localization",),
        _localization,
        ("cam_threshold",),
        {
            "localization.gt_known_loc": "GT-known Loc",
            "localization.top1_loc": "Top-1 Loc",
            "localization.maxboxacc_v2": "MaxBoxAccV2",
            **{
                f"localization.baselines.{box}.{key}": f"{name}, {words}"
                for key, name in (("gt_known_loc", "GT-known Loc"), ("maxboxacc_v2", "MaxBoxAccV2"))
                for box, words in (("centre", "a box in the middle"), ("full", "the whole image"))
            },
        },
        check=_check_boxes,
    ),
    "deformation": Measure(
        ("deformation",),
        _deformation,
        ("sample", "interpolation"),
        {f"deformation.{name}": f"{name}, accuracy" for name in DEFORMATIONS},
    ),
    "fgsm": Measure(("fgsm_error",), _fgsm, ("sample", "eps_255"), {"fgsm_error": "FGSM error"}),
    "pgd": Measure(
        ("pgd_error",),
        _pgd,
        ("sample", "eps_255", "pgd_steps", "pgd_step_size_255"),
        {"pgd_error": "PGD error"},
    ),
    "attacks": Measure(
        ("attacks",),
        _attacks,
        ("sample", "eps_255", "apgd_steps", "square_queries"),
        {"attacks.union": "error under APGD-CE, APGD-T and Square"},
        check=lambda subject: check_classes(subject.images.classes),
    ),
    "occlusion": Measure(
        ("occlusion",),
        _occlusion,
        ("sample", "occlusion_patches"),
        check=lambda subject: check_patches(
            subject.images.shape[1:], subject.options.occlusion_patches
        ),
    ),
    "frequencies": Measure(
        ("frequencies",),
        _frequencies,
        ("sample", "frequency_norm", "frequency_side"),
        check=_check_frequencies,
    ),
    "landscape": Measure(
        ("landscape",),
        _landscape,
        ("landscape_images", "landscape_points", "landscape_grid", "hessian_probes"),
        {
            "landscape.top_eigenvalue": "top Hessian eigenvalue",
            "landscape.trace": "Hessian trace",
            "landscape.sharpness": "sharpness",
        },
        needs=("training",),
    ),
    "corruption": Measure(
        ("corruption",),
        _corruption,
        ("sample", "cifar_c_dir"),
        {"corruption.mce": "mCE"},
        check=_check_published,
    ),
}

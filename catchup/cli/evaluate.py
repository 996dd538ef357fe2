"""The `evaluate` command: which model, which tests, and what it prints."""

import json as json_format
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import tyro

from .options import options_of


def make_command():
    """The command for tyro, with the fields of `Options` among its options."""
    from ..measures.subject import Options

    test_options = options_of("tests", list(fields(Options)), Options)

    def evaluate(
        run_dir: tyro.conf.Positional[Path],
        options: test_options,
        tests: str = "clean,feature-drop,fgsm,pgd",
        data_dir: str | None = None,
        pretrained: str | None = None,
        data: str = "imagenet",
        image_size: int = 256,
        window: int = 224,
        device: Literal["auto", "cpu"] = "auto",
        json: bool = False,
    ) -> None:
        """Measure a trained run, or a model with ImageNet's weights, and leave evaluation.json in
        its folder.

        Args:
            run_dir: The folder that `catchup train` filled; with --pretrained, a new one.
            tests: Which measurements, separated by commas: clean, feature-drop, calibration,
                confidence, reliance, ood, outside, cues, localization, deformation, fgsm, pgd,
                attacks, occlusion, frequencies, landscape, corruption. Those of an earlier call
                are kept.
            data_dir: Where the data are now, if not where they were in training.
            pretrained: Measure this model, such as torchvision.resnet50, with its published
                ImageNet weights.
            data: With --pretrained: the test images, imagenet or imagenet:PATH.
            image_size: With --pretrained: the shorter side of the images, in pixels.
            window: With --pretrained: the middle square of them that the model sees.
            device: auto takes a GPU if there is one.
            json: Print the evaluation as JSON instead of a table.
        """
        from ..experiments import evaluate as evaluate_run
        from ..experiments import evaluate_pretrained

        names = tuple(tests.split(","))
        shared: dict[str, Any] = {"options": Options(**vars(options)), "device": device}
        if pretrained is None:
            row = evaluate_run(run_dir, names, data_dir=data_dir, **shared)
        else:
            shared |= {"data_dir": data_dir or "data", "image_size": image_size, "window": window}
            row = evaluate_pretrained(pretrained, data, run_dir, names, **shared)
        print(json_format.dumps(row) if json else _as_lines(row, names, run_dir))

    return evaluate


def _as_lines(row: Mapping, tests: Sequence[str], run_dir: Path) -> str:
    """What was measured, a line each."""
    from ..measures.registry import columns
    from ..measures.robustness import masking_verdict
    from ..measures.statistics import value_of

    found = {heading: value_of(row, key) for key, heading in columns(tests).items()}
    lines = [f"{value:10.2f}  {name}" for name, value in found.items() if value is not None]
    more = (masking_verdict(row), f"all of it: {run_dir / 'evaluation.json'}")
    return "\n".join([*lines, *filter(None, more)])

"""Models by name: the papers' networks, and every torchvision or timm classifier, through one
`create`.

The networks themselves are in `catchup.models`, with their sources. Each has two stems: "small" for
images of 32 or 64 pixels, as the CIFAR protocols have it, and "imagenet".

Weights learned on ImageNet are torchvision's first set (IMAGENET1K_V1, plain training). The second
sets were trained with mixup and CutMix, so they would answer for the very methods that are compared
here. They expect RGB images in [0, 1], normalised with
`catchup.data.protocol.NORMALISATIONS["imagenet"]`.
"""

import inspect
from difflib import get_close_matches

from torch import nn

from ..hooks.classifier import find_classifier
from ..utils.choices import check_whole, pick
from .plain import densenet121, mobilenet_v2, take_channels, vgg11, vgg11_bn
from .pyramid import pyramidnet200
from .residual import preact_resnet18, preact_resnet50, resnet18, resnet50, resnext50_32x4d
from .wide import wrn16_8, wrn28_10

OWN = {
    build.__name__: build
    for build in (
        resnet18,
        preact_resnet18,
        resnet50,
        preact_resnet50,
        resnext50_32x4d,
        wrn16_8,
        wrn28_10,
        densenet121,
        pyramidnet200,
        vgg11,
        vgg11_bn,
        mobilenet_v2,
    )
}
PRETRAINED = (
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "densenet121",
    "vgg11",
    "vgg11_bn",
    "mobilenet_v2",
)
_WEIGHTS = "IMAGENET1K_V1"
IMAGENET_CLASSES = 1000


def names() -> list[str]:
    """The names of our own models, as `create` takes them."""
    return list(OWN)


def full_width(name: str) -> int | None:
    """The published width of one of our own models; None for other models, and for those without a
    width to set.
    """
    width = _settings_of(name).get("width") if name in OWN else None
    return width and width.default


def create(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    width: int | None = None,
    pretrained: bool = False,
    **options,
) -> nn.Module:
    """A classifier by name, with random weights unless asked for others.

    Args:
        name: one of `names()`, `torchvision.NAME` or `timm.NAME`; a bare name that is not ours is
            looked for in torchvision, then in timm.
        num_classes: classes told apart, >= 1.
        in_channels: channels of the images, >= 1. A torchvision model gets a new first convolution
            where it is not 3: same settings, PyTorch's default initialisation.
        width: channels of the first stage, >= 1, of our own models (None: the published width);
            those of the libraries, densenet121 and mobilenet_v2 have no such setting.
        pretrained: begin with torchvision's ImageNet weights (see the top of this file), downloaded
            once into torch.hub's folder: for `torchvision.NAME`, and with stem="imagenet" for the
            models in `PRETRAINED`. Where num_classes is not 1000 the classifier is a new one.
        **options: what the model's own builder takes besides (`stem`, `stem_stride`,
            `norm_before_pool`, torchvision's `aux_logits`).
    Returns:
        The module: images (B, in_channels, H, W) to scores (B, num_classes).
    Raises:
        ValueError: for an unknown name, a number below 1, a `width` or an option the model does not
            have, weights that do not exist for it, and for a timm name where timm is not installed.
    """
    check_whole(
        num_classes=num_classes, in_channels=in_channels, width=1 if width is None else width
    )
    library, bare = ("own", name) if name in OWN else _find_library(name)
    settings = dict(options) if width is None else {**options, "width": width}
    _check_settings(library, bare, width, options)
    if pretrained:
        _check_pretrained(name, library, in_channels, settings)
        return _with_classes(_pretrained(library, bare, settings), num_classes)
    if library == "own":
        return OWN[name](num_classes=num_classes, in_channels=in_channels, **settings)
    if library == "timm":
        import timm

        return timm.create_model(bare, num_classes=num_classes, in_chans=in_channels, **options)
    from torchvision import models

    model = models.get_model(bare, weights=None, num_classes=num_classes, **options)
    take_channels(model, in_channels)
    return model


def _find_library(name: str) -> tuple[str, str]:
    """Library and bare name of a model that is not ours."""
    prefix, _, bare = name.partition(".")
    explicit, near = prefix in ("torchvision", "timm"), []
    bare = bare if explicit else name
    for library in [prefix] if explicit else ["torchvision", "timm"]:
        listed = _library_models(library, required=explicit)
        if bare in listed:
            return library, bare
        near += [f"{library}.{match}" for match in get_close_matches(bare, listed)]
    # always raises
    return "", pick("model (own name, torchvision.NAME or timm.NAME)", name, [*names(), *near])


def _library_models(library: str, required: bool) -> list[str]:
    """The classifiers of a library; where timm is not installed none, or an error if it is
    required.
    """
    if library == "torchvision":
        from torchvision import models

        return models.list_models(module=models)
    try:
        import timm
    except ImportError:
        if required:
            raise ValueError(
                "timm models need the package timm: from a clone, pip install -e '.[timm]'"
            ) from None
        return []
    return timm.list_models()


def _settings_of(name: str) -> dict[str, inspect.Parameter]:
    """What a model of ours may be told: by its builder, and by the network that this hands the rest
    on to.
    """
    build, known = inspect.signature(OWN[name]), {}
    for make in (OWN[name], *inspect.getmro(build.return_annotation)):
        parameters = inspect.signature(make).parameters
        known = {**parameters, **known}
        if "settings" not in parameters:  # those of what it hands the rest to
            break
    return {option: given for option, given in known.items() if given.kind is given.KEYWORD_ONLY}


def _check_settings(library: str, name: str, width: int | None, options: dict) -> None:
    """Raise ValueError for a width or an option of ours that the model does not have."""
    scalable = [own for own in OWN if "width" in _settings_of(own)]
    if width is not None and (library != "own" or name not in scalable):
        full = name if library == "own" else f"{library}.{name}"
        raise ValueError(
            f"{full} has no width to set, got width={width}; models with one: {', '.join(scalable)}"
        )
    for option in options:
        if library == "own":
            pick(f"option of {name}", option, _settings_of(name))
        elif option in ("stem", "stem_stride"):
            raise ValueError(
                f"{library}.{name} comes with its own stem, got {option}={options[option]!r};"
                f" models with a choice: {', '.join(OWN)}"
            )


def _check_pretrained(name: str, library: str, in_channels: int, settings: dict) -> None:
    """Raise ValueError unless there are weights for the model in this shape."""
    if library == "timm" or library == "own" and name not in PRETRAINED:
        raise ValueError(
            f"there are no pretrained weights for {name}; there are for torchvision.NAME and, with "
            f"stem='imagenet', for {', '.join(PRETRAINED)}"
        )
    if library == "own" and settings.get("stem") != "imagenet":
        raise ValueError(
            f"the pretrained weights of {name} are for stem='imagenet', got "
            f"stem={settings.get('stem', 'small')!r}"
        )
    if in_channels != 3 or "width" in settings:
        width = f" and width={settings['width']}" if "width" in settings else ""
        raise ValueError(
            "pretrained weights are for 3 channels and the full width, got"
            f" in_channels={in_channels}{width}"
        )


def _pretrained(library: str, name: str, settings: dict) -> nn.Module:
    """The model for ImageNet's 1000 classes with torchvision's weights; ours hold theirs in the
    same order.
    """
    from torchvision import models

    weights = models.get_model_weights(name).__members__.get(_WEIGHTS)
    if weights is None:
        raise ValueError(f"torchvision has no {_WEIGHTS} weights for {name}")
    if library == "torchvision":
        return models.get_model(name, weights=weights, **settings)
    theirs = models.get_model(name, weights=weights).state_dict()
    model = OWN[name](num_classes=IMAGENET_CLASSES, **settings)
    model.load_state_dict(dict(zip(model.state_dict(), theirs.values(), strict=True)))
    return model


def _with_classes(model: nn.Module, num_classes: int) -> nn.Module:
    """The model with a new linear layer at its end, PyTorch's initialisation, unless it has the
    classes already.
    """
    path, old = find_classifier(model)
    if old.out_features != num_classes:
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Linear(old.in_features, num_classes))
    return model

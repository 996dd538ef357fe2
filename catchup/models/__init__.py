"""Models: the networks of the papers, and every torchvision or timm classifier, by name; and their
answers.

`registry` knows the names, `trained_networks` those that come with their weights; the other files
hold the networks with their sources, `inference` turns pixels into logits.
"""

from .inference import PixelModel, predict, top_k_error
from .plain import VGG, densenet121, mobilenet_v2, vgg11, vgg11_bn
from .pyramid import PyramidBottleneck, PyramidNet, pyramidnet200
from .registry import IMAGENET_CLASSES, OWN, PRETRAINED, create, full_width, names
from .residual import (
    BasicBlock,
    Bottleneck,
    GroupedBottleneck,
    PreActBlock,
    PreActBottleneck,
    PreActResNet,
    ResNet,
    preact_resnet18,
    preact_resnet50,
    resnet18,
    resnet50,
    resnext50_32x4d,
)
from .stem import STEMS
from .trained_networks import trained, trained_card, trained_course, trained_names
from .weights import load_weights, save_weights
from .wide import WideResNet, wrn16_8, wrn28_10

__all__ = [
    "IMAGENET_CLASSES",
    "OWN",
    "PRETRAINED",
    "STEMS",
    "VGG",
    "BasicBlock",
    "Bottleneck",
    "GroupedBottleneck",
    "PixelModel",
    "PreActBlock",
    "PreActBottleneck",
    "PreActResNet",
    "PyramidBottleneck",
    "PyramidNet",
    "ResNet",
    "WideResNet",
    "create",
    "densenet121",
    "full_width",
    "load_weights",
    "mobilenet_v2",
    "names",
    "predict",
    "preact_resnet18",
    "preact_resnet50",
    "pyramidnet200",
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "save_weights",
    "top_k_error",
    "trained",
    "trained_card",
    "trained_course",
    "trained_names",
    "vgg11",
    "vgg11_bn",
    "wrn16_8",
    "wrn28_10",
]

"""Networks written with irconv.nn, as one would write them with torch.nn; ``MODELS`` lists them with inputs that fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from irconv import nn
from models.flat import flat_net
from models.inception import googlenet, small_inception
from models.lenet import lenet
from models.mobilenet_v2 import mobilenet_v2
from models.resnet import resnet18, resnet34, resnet50, resnet152
from models.rgbd import rgbd
from models.segmentation import segmenter
from models.sequence1d import sequence_net
from models.unet import unet
from models.vgg import vgg11, vgg16
from models.video3d import video_net

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Example:
    """A network, the shapes of its inputs, and a small version of it that runs in a moment."""

    make: Callable[..., nn.Module]
    inputs: Shapes
    small: Callable[[], nn.Module]
    small_inputs: Shapes


MODELS: dict[str, Example] = {
    "lenet": Example(lenet, ((64, 1, 28, 28),), lenet, ((2, 1, 28, 28),)),
    "resnet18": Example(resnet18, ((1, 3, 224, 224),), lambda: resnet18(10, 8), ((2, 3, 64, 64),)),
    "resnet34": Example(resnet34, ((1, 3, 224, 224),), lambda: resnet34(10, 8), ((2, 3, 64, 64),)),
    "resnet50": Example(resnet50, ((1, 3, 224, 224),), lambda: resnet50(10, 8), ((2, 3, 64, 64),)),
    "resnet152": Example(resnet152, ((1, 3, 224, 224),), lambda: resnet152(10, 8), ((2, 3, 64, 64),)),
    "vgg11": Example(vgg11, ((1, 3, 224, 224),), lambda: vgg11(10, 4, 16), ((2, 3, 64, 64),)),
    "vgg16": Example(vgg16, ((1, 3, 224, 224),), lambda: vgg16(10, 4, 16), ((2, 3, 64, 64),)),
    "mobilenet_v2": Example(mobilenet_v2, ((1, 3, 224, 224),), lambda: mobilenet_v2(10, 0.25), ((2, 3, 64, 64),)),
    "googlenet": Example(googlenet, ((1, 3, 224, 224),), small_inception, ((2, 3, 32, 32),)),
    "unet": Example(unet, ((1, 3, 128, 128),), lambda: unet(3, 2, 4, 3), ((2, 3, 32, 32),)),
    "segmenter": Example(segmenter, ((1, 3, 128, 128),), lambda: segmenter(5, 4), ((2, 3, 24, 32),)),
    "sequence_net": Example(sequence_net, ((8, 2, 1024),), lambda: sequence_net(2, 6, 8, 3), ((2, 2, 64),)),
    "video_net": Example(video_net, ((2, 3, 16, 64, 64),), lambda: video_net(3, 4, 4), ((2, 3, 8, 16, 16),)),
    "rgbd": Example(rgbd, ((4, 3, 96, 128), (4, 1, 96, 128)), lambda: rgbd(8, 4), ((2, 3, 24, 32), (2, 1, 24, 32))),
    "flat_net": Example(flat_net, ((4, 1, 20, 1000),), lambda: flat_net(3, 4), ((2, 1, 20, 1000),)),
}

"""Optimisers as graph updates, learning-rate schedules and gradient clipping."""

from irconv.optim.base import Group, Optimizer
from irconv.optim.clipping import clip_grad_norm_, clip_grad_value_, clip_norm, clip_value
from irconv.optim.rules import SGD, Adam, AdamW, RMSprop
from irconv.optim.schedules import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    Schedule,
    StepLR,
)

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ConstantLR",
    "CosineAnnealingLR",
    "ExponentialLR",
    "Group",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_norm",
    "clip_value",
]

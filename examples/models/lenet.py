"""LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, for 28x28 digits."""

from __future__ import annotations

from irconv import Tensor, nn


class LeNet(nn.Module):
    """Two convolutions, each halved by pooling, and three linear layers."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x).relu())
        x = self.pool(self.conv2(x).relu())
        x = x.flatten(1)
        x = self.fc1(x).relu()
        x = self.fc2(x).relu()
        return self.fc3(x)


def lenet(classes: int = 10) -> LeNet:
    return LeNet(classes)

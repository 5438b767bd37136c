"""MobileNetV2 1.0 at 224 x 224 (Sandler et al. 2018, arXiv:1801.04381, table 2), seeded random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# expansion t, channels c, repeats n, stride s of the first: the rows of table 2
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def conv_bn(wide_in: int, wide_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution without bias, normalised; padded so that stride 1 keeps the size."""
    conv = nn.Conv2d(wide_in, wide_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(wide_out))


class Bottleneck(nn.Module):
    """The inverted residual with a linear bottleneck (table 1 of the paper)."""

    def __init__(self, wide_in: int, wide_out: int, *, expand: int, stride: int) -> None:
        super().__init__()
        hidden = wide_in * expand
        widen = [conv_bn(wide_in, hidden), nn.ReLU6()] if expand > 1 else []
        depthwise = [conv_bn(hidden, hidden, 3, stride=stride, groups=hidden), nn.ReLU6()]
        self.body = nn.Sequential(*widen, *depthwise, conv_bn(hidden, wide_out))
        self.residual = stride == 1 and wide_in == wide_out

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H / stride, W / stride]."""
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """The whole network: 3,504,872 parameters for 1000 classes."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 32, 3, stride=2), nn.ReLU6())
        blocks: list[nn.Module] = []
        width = 32
        for expand, channels, repeats, stride in STAGES:
            for repeat in range(repeats):
                blocks.append(Bottleneck(width, channels, expand=expand, stride=stride if repeat == 0 else 1))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.neck = nn.Sequential(conv_bn(width, 1280), nn.ReLU6())
        self.head = nn.Linear(1280, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, 3, 224, 224] to logits [B, classes]."""
        return self.head(self.neck(self.blocks(self.stem(image))).mean((2, 3)))


def seed_weights_(net: nn.Module, seed: int = 0) -> None:
    """Fill weights so that activations keep their scale, and statistics as training would leave them."""
    gen = torch.Generator().manual_seed(seed)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, generator=gen)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5, generator=gen)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=gen)
            nn.init.normal_(part.bias, std=0.1, generator=gen)
            nn.init.normal_(part.running_mean, std=0.1, generator=gen)
            nn.init.uniform_(part.running_var, 0.5, 1.5, generator=gen)


def model() -> nn.Module:
    """The network, ready for inference."""
    net = MobileNetV2()
    seed_weights_(net)
    return net.eval()


def example_inputs() -> dict[str, Tensor]:
    """One image of seeded noise."""
    return {"image": torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))}

"""ResNet-18 at 224 x 224 (He et al. 2015, arXiv:1512.03385, table 1), with seeded random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS, REPEATS = (64, 128, 256, 512), 2


def conv_bn(wide_in: int, wide_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution without bias, normalised; padded so that stride 1 keeps the size."""
    conv = nn.Conv2d(wide_in, wide_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(wide_out))


class Block(nn.Module):
    """Two 3 x 3 convolutions and what goes past them, projected where the shape changes (option B of the paper)."""

    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(wide_in, wide_out, 3, stride), nn.ReLU(), conv_bn(wide_out, wide_out, 3))
        same = stride == 1 and wide_in == wide_out
        self.past = nn.Identity() if same else conv_bn(wide_in, wide_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] to [B, out, H / stride, W / stride]."""
        return functional.relu(self.body(x) + self.past(x))


class ResNet18(nn.Module):
    """The whole network: 11,689,512 parameters for 1000 classes."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, WIDTHS[0], 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks: list[nn.Module] = []
        width = WIDTHS[0]
        for channels in WIDTHS:
            for repeat in range(REPEATS):
                blocks.append(Block(width, channels, stride=2 if repeat == 0 and channels != width else 1))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Images [B, 3, 224, 224] to logits [B, classes]."""
        return self.head(self.blocks(self.stem(image)).mean((2, 3)))


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
    net = ResNet18()
    seed_weights_(net)
    return net.eval()


def example_inputs() -> dict[str, Tensor]:
    """One image of seeded noise."""
    return {"image": torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))}

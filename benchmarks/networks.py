"""The reference networks for CIFAR-10 (inputs [n, 3, 32, 32], 10 classes), with the weights trained here.

    engine deploy benchmarks/networks.py:resnet20 --target cpu --task examples/cifar10.py:resnet

`benchmarks/train_reference.py` trains them; `benchmarks/checkpoints/` keeps weights, recipe and curve.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def resnet20() -> nn.Module:
    """ResNet-20 of He et al. 2016, section 4.2 (shortcuts without weights): 0.27 M weights."""
    return trained("resnet20")


def vit() -> nn.Module:
    """A ViT of 64 tokens, width 96, 6 blocks of 3 heads, with a convolutional stem: 0.74 M weights."""
    return trained("vit")


def vit12() -> nn.Module:
    """The ViT with 12 blocks: 1.39 M weights."""
    return trained("vit12")


def resnet18() -> nn.Module:
    """ResNet-18 as for CIFAR (four stages of two blocks) at 24, 48, 96 and 192 channels: 1.57 M weights."""
    return trained("resnet18")


def vgg11() -> nn.Module:
    """VGG-11 with batch norm at half its widths and one linear layer: 2.3 M weights."""
    return trained("vgg11")


def example_inputs() -> Tensor:
    """One image."""
    return torch.zeros(1, 3, 32, 32)


def trained(name: str) -> nn.Module:
    """The network with its committed weights, in evaluation mode."""
    module = NETWORKS[name]()
    halves = load_file(CHECKPOINTS / f"{name}.safetensors")
    module.load_state_dict(
        {key: value.float() if value.is_floating_point() else value for key, value in halves.items()}
    )
    return module.eval()


def save(module: nn.Module, path: Path) -> None:
    """Write the weights as float16: half the bytes, and no answer that counts differs."""
    tensors = module.state_dict()
    save_file({key: t.half().contiguous() if t.is_floating_point() else t for key, t in tensors.items()}, path)


class _Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut that skips pixels and adds empty channels where the size changes."""

    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.stride, self.added = stride, wide - narrow

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.added:
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return torch.relu(x + y)


def _resnet(widths: tuple[int, ...], depth: int) -> nn.Module:
    """`depth` blocks at each width; every width after the first halves the image."""
    blocks: list[nn.Module] = []
    narrow = widths[0]
    for wide in widths:
        blocks.append(_Residual(narrow, wide, 1 if wide == widths[0] else 2))
        blocks += [_Residual(wide, wide, 1) for _ in range(depth - 1)]
        narrow = wide
    stem = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(narrow, 10))


def _resnet20() -> nn.Module:
    return _resnet((16, 32, 64), 3)


def _resnet18() -> nn.Module:
    return _resnet((24, 48, 96, 192), 2)


def _vit12() -> nn.Module:
    return _ViT(depth=12)


def _vgg11() -> nn.Module:
    layers: list[nn.Module] = []
    narrow = 3
    for wide in (32, 0, 64, 0, 128, 128, 0, 256, 256, 0, 256, 256):
        if wide:
            layers += [nn.Conv2d(narrow, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
            narrow = wide
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(narrow, 10))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        weights = torch.softmax(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5, dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class _Block(nn.Module):
    """Pre-norm attention and MLP, each added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _ViT(nn.Module):
    def __init__(self, width: int = 96, depth: int = 6, heads: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.position = nn.Parameter(torch.randn(1, 64, width) * 0.02)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": _resnet20,
    "vit": _ViT,
    "vgg11": _vgg11,
    "vit12": _vit12,
    "resnet18": _resnet18,
}

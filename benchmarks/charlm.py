"""A small character model of Python source, and the text that it learns: the standard library of the Python that runs.

    python benchmarks/charlm.py --work DIR

trains the model of `network` with the trainer that methods share, and goes on after a kill.
"""

from __future__ import annotations

import argparse
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgewright.torchkit.data import Batch
from edgewright.torchkit.fit import fit
from edgewright.torchkit.losses import supervised
from edgewright.torchkit.training import Training
from edgewright.types import Array

CONTEXT = 1024
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))
"""What a token may be; any other character is read as a question mark."""
HELD_OUT = 10
"""Every how many-th file is not trained on."""


class Block(nn.Module):
    """Attention to what came before, and an MLP; norms stand before each (GPT-2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, turn: Tensor) -> Tensor:
        """Tokens [b, t, c] to the same; `turn` [2, t, 1, d] turns queries and keys by their places."""
        *turned, values = self.qkv(self.norm1(x)).unflatten(2, (3 * self.heads, -1)).split(self._parts(), 2)
        q, k = rotated(turned[0], turn).transpose(1, 2).chunk(2, 1)
        seen = functional.scaled_dot_product_attention(q, k, values.transpose(1, 2), is_causal=True)
        x = x + self.proj(seen.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))

    def _parts(self) -> list[int]:
        return [2 * self.heads, self.heads]


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """Pairs of channels of x [b, t, h, d], turned (Su et al. 2021, RoFormer)."""
    one, other = x.chunk(2, -1)
    return x * turn[0] + torch.cat([-other, one], -1) * turn[1]


def turns(context: int, size: int) -> Tensor:
    """Cosines and sines [2, context, 1, size] of a place's angles."""
    rates = 10000.0 ** -(torch.arange(0, size, 2) / size)
    angles = (torch.arange(context)[:, None] * rates).repeat(1, 2)
    return torch.stack([angles.cos(), angles.sin()])[:, :, None]


class CharLm(nn.Module):
    """A decoder over characters with rotary places."""

    def __init__(self, width: int = 96, heads: int = 3, blocks: int = 4, context: int = CONTEXT) -> None:
        super().__init__()
        self.tokens = nn.Embedding(len(CHARACTERS), width)
        self.turns = nn.Buffer(turns(context, width // heads), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(CHARACTERS), bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Characters int64 [b, t] to logits of the next ones [b, t, 96]."""
        x = self.tokens(tokens)
        turn = self.turns[:, torch.arange(tokens.shape[1], device=tokens.device)]
        for block in self.blocks:
            x = block(x, turn)
        return self.head(self.norm(x))


def network() -> CharLm:
    """Untrained, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CharLm().eval()


def larger() -> CharLm:
    """Untrained, of a shape in which weights take more time than the call of an operator."""
    return CharLm(width=256, heads=8, blocks=6).eval()


def example_inputs() -> Tensor:
    """A text of the context's length."""
    return torch.zeros(1, CONTEXT, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class Text:
    """Characters as numbers, int64: what is trained on, and what is held out."""

    training: Array
    test: Array


def read_text(source: Path | None = None) -> Text:
    """The text of a file, whose last tenth is held out; by default the standard library, of which whole files are."""
    if source is not None:
        whole = encoded(source.read_text(encoding="utf-8", errors="replace"))
        return Text(*np.split(whole, [len(whole) * (HELD_OUT - 1) // HELD_OUT]))
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [encoded(path.read_text(encoding="utf-8", errors="replace")) for path in files]
    held = texts[HELD_OUT - 1 :: HELD_OUT]
    return Text(np.concatenate([t for i, t in enumerate(texts) if i % HELD_OUT != HELD_OUT - 1]), np.concatenate(held))


def encoded(text: str) -> Array:
    """Characters to their numbers, int64."""
    codes = np.minimum(np.frombuffer(text.encode("ascii", errors="replace"), np.uint8), 127)
    numbers = np.full(128, CHARACTERS.index("?"), np.int64)
    numbers[[ord(character) for character in CHARACTERS]] = np.arange(len(CHARACTERS))
    return numbers[codes]


@dataclass(frozen=True, eq=False)
class Passages:
    """Passages of a text that start anywhere: what a training step reads."""

    text: Array
    batch: int
    steps: int
    seed: int
    context: int = CONTEXT

    def __len__(self) -> int:
        return self.steps

    def epoch(self, number: int) -> Iterator[Batch]:
        """Batches of characters [batch, context], whose labels are the ones that come next."""
        rng = np.random.default_rng([self.seed, number])
        for _ in range(self.steps):
            starts = rng.integers(0, len(self.text) - self.context - 1, self.batch)
            some = torch.from_numpy(np.stack([self.text[at : at + self.context + 1] for at in starts]))
            yield Batch((some[:, :-1],), some[:, 1:])


def train_network(text: Text, folder: Path, *, steps: int, batch: int = 4) -> CharLm:
    """The network after `steps` on passages of a quarter of the context and a tenth as many on whole ones.

    The state of the training lies in `folder`.
    """
    net = network()
    for part, count, shorter, rate in (("short", steps, 4, 4e-3), ("whole", steps // 10, 1, 1e-3)):
        data = Passages(text.training, batch * shorter // 4, count, seed=0, context=CONTEXT // shorter)
        settings = Training(epochs=1, batch=data.batch, rate=rate, weight_decay=0.05)
        fit(net, data, settings, supervised(), folder=folder / part, progress=told)
    return net


def told(message: str, done: int, total: int) -> None:
    """Say how far a training is, now and then."""
    if done % 50 == 0 or done == total:
        print(f"{done}/{total} {message}", flush=True)


def trained(work: Path) -> CharLm:
    """The network that `main` trained."""
    net = network()
    net.load_state_dict(torch.load(work / "whole.pt", weights_only=True))
    return net


def main() -> None:
    """Train, and keep the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="a text file; by default the standard library's source")
    parser.add_argument("--steps", type=int, default=1200)
    options = parser.parse_args()
    for part in ("short", "whole"):
        (options.work / "training" / part).mkdir(parents=True, exist_ok=True)
    net = train_network(read_text(options.data), options.work / "training", steps=options.steps)
    torch.save(net.state_dict(), options.work / "whole.pt")


if __name__ == "__main__":
    main()

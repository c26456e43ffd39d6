"""Build nets like ResNet-50 and BERT-base with random weights, in plain torch."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Net(NamedTuple):
    """A net, the shape and dtype of its input rows, and a way to make such rows."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    dtype: str
    # All input values are smaller.
    limit: int

    def rows(self, count: int) -> np.ndarray:
        generator = np.random.default_rng(0)
        return generator.integers(0, self.limit, (count, *self.shape)).astype(
            self.dtype
        )


def residual(*, small: bool) -> Net:
    """A net over images as bytes, which it scales itself."""
    blocks, width, size = ((1, 1, 1, 1), 8, 64) if small else ((3, 4, 6, 3), 64, 224)
    module = Residual(blocks, width)
    return Net("ResNet-50-like", module, (3, size, size), "uint8", 256)


def transformer(*, small: bool) -> Net:
    layers, width, heads, length = (2, 64, 4, 16) if small else (12, 768, 12, 128)
    vocabulary = 1000 if small else 30_522
    module = Transformer(layers, width, heads, length, vocabulary)
    return Net("BERT-base-like", module, (length,), "int64", vocabulary)


class Residual(nn.Module):
    """He et al. 2015, https://arxiv.org/abs/1512.03385: bottleneck blocks."""

    def __init__(self, blocks: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        layers: list[nn.Module] = []
        channels = width
        for stage, count in enumerate(blocks):
            inner = width * 2**stage
            for index in range(count):
                stride = 2 if stage and not index else 1
                layers.append(Bottleneck(channels, inner, stride))
                channels = 4 * inner
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 1000)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        scaled = pictures.float() / 255 - 0.5
        features = self.layers(self.stem(scaled))
        return self.head(features.mean((2, 3)))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        outer = 4 * inner
        self.path = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, outer, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.short = (
            nn.Identity()
            if channels == outer and stride == 1
            else nn.Sequential(
                nn.Conv2d(channels, outer, 1, stride, bias=False),
                nn.BatchNorm2d(outer),
            )
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.path(values) + self.short(values))


class Transformer(nn.Module):
    """Devlin et al. 2018, https://arxiv.org/abs/1810.04805: an encoder, pooled."""

    def __init__(
        self, layers: int, width: int, heads: int, length: int, vocabulary: int
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.randn(length, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(*[Encoder(width, heads) for _ in range(layers)])
        self.pool = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        values = self.norm(self.words(tokens) + self.places)
        return torch.tanh(self.pool(self.layers(values)[:, 0]))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mixed = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.wide, self.narrow = (
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        rows, length, width = values.shape
        parts = self.mixed(values).view(
            rows, length, 3, self.heads, width // self.heads
        )
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        values = self.first(
            values + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        )
        return self.second(values + self.narrow(functional.gelu(self.wide(values))))

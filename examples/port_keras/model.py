"""The reader of numbers in plain PyTorch; nothing here knows of Keras' files.

It computes what the network of `make_reference.py` computes, as one writes it in PyTorch.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

HEIGHT, WIDTH = 16, 48
NO_DIGIT = 10


class Reader(nn.Module):
    """Pictures, [n, 1, 16, 48], to scores of ten digits and none, [n, 24, 11]."""

    def __init__(self) -> None:
        super().__init__()
        # SAME with a stride of 2 pads one row or column, behind: see `forward`.
        self.conv1 = nn.Conv2d(1, 8, 3, stride=2, bias=False)
        self.norm1 = nn.BatchNorm2d(8, eps=1e-3, momentum=0.01)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=(2, 1), bias=False)
        self.norm2 = nn.BatchNorm2d(16, eps=1e-3, momentum=0.01)
        self.lstm = nn.LSTM(16 * HEIGHT // 4, 16, batch_first=True, bidirectional=True)
        self.digits = nn.Linear(32, NO_DIGIT + 1)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = functional.pad(pictures, (0, 1, 0, 1))  # left, right, top, bottom
        x = self.norm1(self.conv1(x)).relu()
        x = functional.pad(x, (1, 1, 0, 1))
        x = self.norm2(self.conv2(x)).relu()
        # Columns first, and within a column rows before channels, as Keras has them.
        columns = x.permute(0, 3, 2, 1).flatten(2)
        return self.digits(self.lstm(columns)[0])


class FirstDraft(Reader):
    """The reader as it is first written down: padding and epsilon as PyTorch has them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=(2, 1), padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = self.norm1(self.conv1(pictures)).relu()
        x = self.norm2(self.conv2(x)).relu()
        columns = x.permute(0, 3, 2, 1).flatten(2)
        return self.digits(self.lstm(columns)[0])

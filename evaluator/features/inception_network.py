"""The network behind FID: TensorFlow's "2015-12-05" Inception v3, as torch-fidelity rebuilt it.

The blocks are torch-fidelity's; their assembly is ours, because its own class reads the weights
file with a loader that runs code.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity import feature_extractor_inceptionv3 as blocks

SIZE = 299
NUM_FEATURES = 2048
NUM_CLASSES = 1008
SPATIAL_CHANNELS = 7
NUM_SPATIAL = SPATIAL_CHANNELS * 17 * 17


class InceptionOutputs(NamedTuple):
    """What one pass gives for N images."""

    features: Tensor
    """(N, 2048), after the last average pooling."""
    spatial: Tensor
    """(N, 2023), seven channels of the 17 x 17 block, row by row with the channel last."""
    logits: Tensor
    """(N, 1008), of the last layer without its bias."""


class InceptionNetwork(nn.Module):
    """(N, 3, 299, 299) in [-1, 1) → `InceptionOutputs`. Parameter names are torch-fidelity's."""

    def __init__(self) -> None:
        super().__init__()
        conv = blocks.BasicConv2d
        self.Conv2d_1a_3x3 = conv(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = conv(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = conv(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = conv(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = conv(80, 192, kernel_size=3)
        self.Mixed_5b = blocks.InceptionA(192, pool_features=32)
        self.Mixed_5c = blocks.InceptionA(256, pool_features=64)
        self.Mixed_5d = blocks.InceptionA(288, pool_features=64)
        self.Mixed_6a = blocks.InceptionB(288)
        self.Mixed_6b = blocks.InceptionC(768, channels_7x7=128)
        self.Mixed_6c = blocks.InceptionC(768, channels_7x7=160)
        self.Mixed_6d = blocks.InceptionC(768, channels_7x7=160)
        self.Mixed_6e = blocks.InceptionC(768, channels_7x7=192)
        self.Mixed_7a = blocks.InceptionD(768)
        self.Mixed_7b = blocks.InceptionE_1(1280)
        self.Mixed_7c = blocks.InceptionE_2(2048)
        self.fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, images: Tensor) -> InceptionOutputs:
        """One pass for all three outputs."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = F.max_pool2d(x, kernel_size=3, stride=2)  # N x 64 x 73 x 73
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, kernel_size=3, stride=2)  # N x 192 x 35 x 35
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        x = self.Mixed_6d(x)  # N x 768 x 17 x 17
        # guided-diffusion reads `mixed_6/conv`: the 1x1 branch of this block, whose channels come
        # first in the concatenation. TensorFlow's mixed_4 … mixed_7 are 6b … 6e here.
        spatial = x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x))))
        features = torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)
        return InceptionOutputs(features, spatial, features.mm(self.fc.weight.T))

"""A weights file of the FID network with seeded random values: no download, the same every time."""

from __future__ import annotations

from pathlib import Path

import torch

from evaluator.features.inception_network import InceptionNetwork


def random_state_dict() -> dict[str, torch.Tensor]:
    """Tensors under torch-fidelity's names; batch normalisation does something."""
    with torch.random.fork_rng():
        torch.manual_seed(20151205)
        network = InceptionNetwork()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # Centred and scaled so that the signal neither dies nor grows through the layers.
                torch.nn.init.normal_(module.running_mean, std=0.05)
                torch.nn.init.uniform_(module.running_var, 0.1, 0.2)
                torch.nn.init.uniform_(module.weight, 0.8, 1.2)
                torch.nn.init.normal_(module.bias, std=0.1)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def save_random_inception(folder: Path) -> Path:
    """`weights.pth` in `folder`."""
    path = folder / "weights.pth"
    torch.save(random_state_dict(), path)
    return path

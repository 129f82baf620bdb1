"""Whether something drew noise that no seed of a sample controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def global_generator_states(device: str) -> list[Tensor]:
    """States of the generators that code takes where it was given none: the CPU's, the device's.

    They differ before and after a call that drew from them.
    """
    import torch

    states = [torch.random.get_rng_state()]
    kind = torch.device(device).type
    if kind != "cpu":
        module = torch.get_device_module(kind)
        # Backends of a single device name no others.
        every = getattr(module, "get_rng_state_all", None)
        states += [module.get_rng_state()] if every is None else every()
    return states

"""When a device's memory does not suffice: a batch goes through in parts, halved until they fit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from evaluator.errors import GenerationError

T = TypeVar("T")

_ALLOCATION_FAILED = "CUBLAS_STATUS_ALLOC_FAILED"


@dataclass
class MicroBatch:
    """How much of a batch goes through at once; what was once too much is not tried again.

    The batches stay those of the plan, padding included: only the passes get smaller. The bits of
    an image depend on their size, so that images are the same to about one grey level only.
    """

    what: str
    """What is done to a batch, for the log: `generating`."""
    size: int | None = field(default=None, init=False)
    """Samples a pass; None: the whole batch."""

    def split(self, count: int, work: Callable[[int, int], T]) -> list[T]:
        """What `work(start, stop)` gives for each part of a batch of `count`, in order.

        Raises GenerationError when the memory does not suffice for a single sample.
        """
        parts: list[T] = []
        start = 0
        while start < count:
            stop = min(start + (self.size or count), count)
            try:
                parts.append(work(start, stop))
                start = stop
                continue
            except Exception as error:
                if not out_of_memory(error):
                    raise
                said = str(error).partition("\n")[0]
            # Outside of `except`: the traceback held on to what the failed pass had made.
            self._halve(stop - start, said)
        return parts

    def _halve(self, tried: int, said: str) -> None:
        from accelerate.utils.memory import clear_device_cache

        if tried == 1:
            raise GenerationError(
                f"{self.what}: the memory does not suffice for a single sample ({said}). Take a "
                "smaller size or dtype, model.cpu_offload or model.vae_tiling, or free the device."
            )
        self.size = -(-tried // 2)
        clear_device_cache(garbage_collection=True)
        logging.getLogger(__name__).warning(
            "%s: the memory does not suffice for %d samples at once (%s); from now on %d at once, "
            "in the same batches. Set runtime.batch_size lower for the same bits everywhere.",
            self.what, tried, said, self.size,
        )  # fmt: skip


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of a device (or of the machine) was used up."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error):
        return True
    return isinstance(error, RuntimeError) and _ALLOCATION_FAILED in str(error)

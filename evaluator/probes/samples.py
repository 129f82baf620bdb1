"""Which samples of a plan are looked at more closely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluator.errors import ConfigError

if TYPE_CHECKING:
    from evaluator.records import Prompt


@dataclass(frozen=True, slots=True)
class SampleChoice:
    """The first samples of the plan, or all samples of the named prompts; none by default."""

    count: int = 0
    """Samples at plan positions below it."""
    keys: frozenset[str] = frozenset()
    """Prompts by key, with all their images."""

    @classmethod
    def parse(cls, value: int | Sequence[str], *, name: str) -> SampleChoice:
        """A number, or a list of keys; ConfigError with the setting's `name` on anything else."""
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(count=value)
        if isinstance(value, (list, tuple)) and all(isinstance(key, str) for key in value):
            return cls(keys=frozenset(value))
        raise ConfigError(
            f"{name}: expected a number of samples, 0 or more, or a list of the prompts' keys; got "
            f"{value!r}. Write for example {name}: 8, or {name}: ['00003', '00017']."
        )

    def __bool__(self) -> bool:
        return bool(self.count or self.keys)

    def select(self, prompts: Sequence[Prompt], positions: Sequence[int]) -> list[int]:
        """Places in a batch, ascending; of a sample that is there again as padding, the first."""
        found: dict[int, int] = {}
        for place, (prompt, position) in enumerate(zip(prompts, positions, strict=True)):
            if position < self.count or prompt.key in self.keys:
                found.setdefault(position, place)
        return sorted(found.values())

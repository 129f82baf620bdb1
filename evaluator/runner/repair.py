"""What is done about a damaged shard: it is set apart, and made again once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from evaluator.errors import CorruptShardError
from evaluator.store.quarantine import set_apart, times_set_apart


@dataclass
class Repairs:
    """The shards that this process set apart."""

    say: Callable[[str], None] = field(default=lambda message: None)
    _shards: set[Path] = field(default_factory=set)
    _by_others: dict[Path, int] = field(default_factory=dict)
    """Shard that another worker set apart first → how often it was set apart by then."""

    def set_apart(self, error: CorruptShardError) -> None:
        """Set apart what an error is about.

        Raises the error again where that is no shard, or one that was set apart before: whatever
        damages it would do so for ever.
        """
        if error.shard is None or error.shard in self._shards:
            raise error
        if set_apart(error):
            self._shards.add(error.shard)
            self.say(f"set apart to be made again: {error}")
            return
        times = times_set_apart(error.shard)
        if times <= self._by_others.get(error.shard, 0):
            raise error  # it is there as before, and nothing is found wrong with it
        self._by_others[error.shard] = times

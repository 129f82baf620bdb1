"""What is done about a damaged shard: it is set apart, and made again once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from evaluator.errors import CorruptShardError
from evaluator.store.quarantine import set_apart


@dataclass
class Repairs:
    """The shards that this process set apart."""

    say: Callable[[str], None] = field(default=lambda message: None)
    _shards: set[Path] = field(default_factory=set)

    def set_apart(self, error: CorruptShardError) -> None:
        """Set apart what an error is about.

        Raises the error again where that is no shard, or one that was set apart before: whatever
        damages it would do so for ever.
        """
        if error.shard is None or error.shard in self._shards:
            raise error
        self._shards.add(error.shard)
        set_apart(error)
        self.say(f"set apart to be made again: {error}")

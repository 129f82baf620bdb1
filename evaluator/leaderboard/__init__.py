"""Many runs side by side: values with intervals, ranks as ranges, and how far to trust the order.

```
runs, --cited → collect (reading) → columns (what may be ranked together)
              → ranking (ranges, win rates, robustness) → Board → outputs
```

Only `metrics.json`, `asked.json`, `init/` and `metrics/*.parquet` of a run are read, never a shard.
"""

from evaluator.leaderboard.records import (
    Agreement,
    Board,
    Cell,
    Citation,
    Column,
    Interval,
    Provenance,
    RankRange,
    Robustness,
    Row,
    Standing,
    Variant,
)

__all__ = [
    "Agreement",
    "Board",
    "Cell",
    "Citation",
    "Column",
    "Interval",
    "Provenance",
    "RankRange",
    "Robustness",
    "Row",
    "Standing",
    "Variant",
]

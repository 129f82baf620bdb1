"""Many runs side by side: values with intervals, ranks as ranges, and how far to trust the order.

```
runs → collect, made_with    what lies on disk
     → questions, columns     what may be ranked together
     → samples, ranks         ranges of ranks, from single samples where they are there
     → standing               win rates, robustness
     → build                  Board, with the rows of a citation file (cited)
```

Only `metrics.json`, `asked.json`, `init/` and `metrics/*.parquet` of a run are read, never a shard.
"""

from evaluator.leaderboard.build import WIN_RATE, leaderboard, sorted_board
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
    "WIN_RATE",
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
    "leaderboard",
    "sorted_board",
]

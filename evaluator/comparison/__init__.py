"""Two or more runs on the same prompts: what differs, by how much, and whether it is noise.

```
compare("runs/a", "runs/b").pairings[0].differences      # from Python
compare_runs([Path("runs/a"), Path("runs/b")]).pairs     # with each sample's values
```
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluator.comparison.calling import compare as compare
from evaluator.comparison.records import Comparison as Comparison

if TYPE_CHECKING:
    from evaluator.comparison.engine import Compared
    from evaluator.comparison.pairing import Request


def compare_runs(
    paths: Sequence[Path], request: Request | None = None, say: Callable[[str], None] | None = None
) -> Compared:
    """Compare the runs at `paths` with the first of them; `say` is told what is being done.

    Raises ConfigError or RunDirectoryError where the paths or names are wrong. What cannot be
    compared becomes a refusal of the result.
    """
    from evaluator.comparison.engine import compare_runs as compare_all

    return compare_all(paths, request, say)

"""What people open: a page, figures and tables made from the files of a run, and nothing else.

```python
from evaluator.report import results_table, write_report
index = write_report(open_run)               # RUN/report/index.html
print(results_table(metrics, width=100))     # the same results in a terminal
```
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from evaluator.report.table import results_table

if TYPE_CHECKING:
    from evaluator.store.rundir import RunDirectory

__all__ = ["results_table", "write_report"]


def write_report(
    run: RunDirectory,
    output: Path | None = None,
    *,
    thumbnails: int | None = None,
    single_file: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write the report of a run and return the path of its page.

    The default place is `RUN/report/`. The report is written aside and swapped in when it is
    complete; until then an older one stays readable. Files in its folder that it did not write are
    kept, and of two reports that are written at once the one that is done last stays, whole.

    All samples are listed. `thumbnails` of them get a picture (default 2,000, and 300 with
    `single_file`): flawed ones, both ends of each score, then the first of the plan; no other
    image is decoded. `single_file` puts everything into the page, at most 64 MiB of pictures, and
    writes no file beside it.

    A run that is incomplete, or that kept no images, observed nothing or was not aggregated yet,
    gives a page that says so; `say` gets what is missing or could not be read, too. Raises
    RunDirectoryError when `output` is a folder that holds something other than a report.
    """
    from evaluator.report.write import write  # Pillow, pyarrow and Jinja2 load here only

    return write(run, output, thumbnails=thumbnails, single_file=single_file, say=say)

"""`python -m evaluator` and the console script `evaluator`."""

from __future__ import annotations

import os
import sys

# Both must be set before the libraries are imported: webdataset otherwise runs pickles and shell
# commands found in shards, and tokenizers start threads that do not survive a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["WDS_SECURE"] = "1"

from evaluator import cli
from evaluator.distributed import end_process
from evaluator.srun import world_of_srun


def main() -> None:
    """Run the command line, and end this process as its launcher should see it."""
    os.environ.update(world_of_srun(os.environ))
    try:
        cli.main()
    except SystemExit as leaving:
        end_process(leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code)))
        raise
    except Exception:
        sys.excepthook(*sys.exc_info())
        end_process(1)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""`python -m evaluator` and the console script `evaluator`."""

from __future__ import annotations

import os

# Both must be set before the libraries are imported: webdataset otherwise runs pickles and shell
# commands found in shards, and tokenizers start threads that do not survive a fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["WDS_SECURE"] = "1"

from evaluator.cli import main

if __name__ == "__main__":
    main()

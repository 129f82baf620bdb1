"""`.eval_results/*.yaml` of the Hugging Face hub: numbers that a model's page shows by data set.

Format: https://huggingface.co/docs/hub/eval-results, as huggingface_hub writes and reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from evaluator.durable import explained, write_atomically
from evaluator.errors import ConfigError
from evaluator.export.options import ExportOptions
from evaluator.export.published import made_at, published, remarks, require_dataset
from evaluator.runs import Run
from evaluator.text import file_name


def write(
    runs: Mapping[str, Run], folder: Path, options: ExportOptions
) -> tuple[list[Path], list[str]]:
    """One file a run, in `.eval_results`; copy that folder into the model's repository.

    A number's name is its task; the notes say interval, n of expected, extractor and warnings.
    """
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError as error:
        raise ConfigError(
            "--to eval-results: expected a huggingface_hub that knows evaluation results, got an "
            "older one. pip install -U huggingface_hub"
        ) from error
    dataset = require_dataset(options)
    files: dict[Path, bytes] = {}
    warnings: list[str] = []
    for name, run in runs.items():
        shown = published(name, run, options)
        warnings += shown.warnings
        entries = [
            EvalResultEntry(
                dataset_id=dataset,
                task_id=metric.name,
                value=metric.value,
                dataset_revision=options.dataset_revision,
                date=made_at(run),
                source_url=options.source_url,
                notes=remarks(metric),
            )
            for metric in shown.metrics
        ]
        content = yaml.safe_dump(
            eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=4096
        )
        files[_unused(folder / ".eval_results", file_name(name), files)] = content.encode()
    with explained("create", folder / ".eval_results"):
        (folder / ".eval_results").mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_atomically(path, text)
    return list(files), warnings


def _unused(folder: Path, stem: str, taken: Mapping[Path, bytes]) -> Path:
    path, count = folder / f"{stem}.yaml", 2
    while path in taken:
        path, count = folder / f"{stem}-{count}.yaml", count + 1
    return path

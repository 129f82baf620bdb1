"""`.eval_results/*.yaml` of the Hugging Face hub: numbers that a model's page shows by data set.

Format: https://huggingface.co/docs/hub/eval-results, as huggingface_hub writes and reads it.
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from evaluator.errors import ConfigError
from evaluator.export.options import ExportOptions
from evaluator.export.published import made_at, made_with, published, remarks, require_dataset
from evaluator.runs import Run
from evaluator.text import file_name


def files(runs: Mapping[str, Run], options: ExportOptions) -> tuple[dict[str, bytes], list[str]]:
    """One file a run, in their order, in `.eval_results`, and what was left out of them.

    That folder is to be copied into the model's repository. A number's name is its task; the notes
    say settings, interval, n of expected, extractor, reference and warnings.
    """
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError as error:
        raise ConfigError(
            "--to eval-results: expected a huggingface_hub that knows evaluation results, got an "
            "older one. pip install -U huggingface_hub"
        ) from error
    dataset = require_dataset(options)
    made: dict[str, bytes] = {}
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
                notes="; ".join(filter(None, [made_with(run), remarks(metric)])),
            )
            for metric in shown.metrics
        ]
        content = yaml.safe_dump(
            eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=4096
        )
        made[_unused(f".eval_results/{file_name(name)}", made)] = content.encode()
    return made, warnings


def _unused(stem: str, taken: Mapping[str, bytes]) -> str:
    name, count = f"{stem}.yaml", 2
    while name in taken:
        name, count = f"{stem}-{count}.yaml", count + 1
    return name

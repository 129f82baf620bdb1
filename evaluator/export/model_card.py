"""A model card for the Hugging Face hub: `model-index` metadata, and a table for people."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluator.durable import explained, write_atomically
from evaluator.errors import ConfigError, InputError
from evaluator.export.options import ExportOptions
from evaluator.export.published import against, made_with, model_of, published
from evaluator.runs import Run
from evaluator.runs.display import notes_of, row_of
from evaluator.text import plain

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

    from evaluator.aggregate.summary import MetricRecord

BEGIN, END = "<!-- evaluator: results -->", "<!-- evaluator: end of results -->"
"""The part of a card that is ours: exporting again replaces it."""

_HEADING = "## Evaluation results of "
"""Its first line, with the model's name."""


def write(
    runs: Mapping[str, Run], folder: Path, options: ExportOptions
) -> tuple[list[Path], list[str]]:
    """`README.md`; of one that is there, only our results are replaced.

    Raises ConfigError where those are of a model of another name.
    """
    path = folder / "README.md"
    name = plain(options.model or model_of(runs).rstrip("/").rpartition("/")[2], limit=96)
    warnings: list[str] = []
    results: list[EvalResult] = []
    sections = [f"{_HEADING}{_markdown(name)}"]
    for run_name, run in runs.items():
        shown = published(run_name, run, options)
        warnings += shown.warnings
        called = run_name if len(runs) > 1 else None
        results += [_result(run, metric, options, called) for metric in shown.metrics]
        sections.append(_section(run_name, run, shown.metrics))
    if not results:
        raise InputError("--to model-card: expected at least one number with a value, got none.")
    card = _card(path)
    _require_same_model(path, card.text, sections[0])
    data: Any = card.data
    data.model_name = data.model_name or name
    ours = {_identity(result) for result in results}
    others = [old for old in data.eval_results or [] if _identity(old) not in ours]
    data.eval_results = [*others, *results]
    card.text = _with_part(card.text, "\n\n".join([BEGIN, *sections, END]))
    with explained("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, str(card).encode())
    return [path], warnings


def _result(
    run: Run, metric: MetricRecord, options: ExportOptions, called: str | None
) -> EvalResult:
    """One number; `called` is the run's name, where that is needed to tell numbers apart."""
    from huggingface_hub import EvalResult

    prompts = run.config.get("prompts")
    source = prompts.get("source") if isinstance(prompts, dict) else None
    data = plain(str(source or run.name).rstrip("/").rpartition("/")[2], limit=200) or run.name
    name = plain(metric.name if called is None else f"{metric.name} ({called})", limit=200)
    return EvalResult(
        task_type=_task(run.config),
        dataset_type=plain(options.dataset or data),
        dataset_name=plain(options.dataset or data),
        dataset_revision=options.dataset_revision,
        metric_type=plain(metric.name),
        metric_name=name,
        metric_value=metric.value,
        metric_args=_arguments(metric),
        source_name="diffusion-evaluator" if options.source_url else None,
        source_url=options.source_url,
    )


def _arguments(metric: MetricRecord) -> dict[str, Any]:
    """What the number stands on: counts, interval, extractor, reference."""
    interval, reference = metric.interval or {}, metric.reference or {}
    found = {
        "n": metric.n,
        "n_expected": metric.n_expected,
        "interval_low": interval.get("low"),
        "interval_high": interval.get("high"),
        "interval_level": interval.get("level"),
        "extractor": metric.extractor,
        "fingerprint": metric.fingerprint,
        "reference": reference.get("name"),
        "reference_n": reference.get("n"),
    }
    return {
        name: plain(value) if isinstance(value, str) else value
        for name, value in found.items()
        if value is not None
    }


def _identity(result: EvalResult) -> tuple[object, ...]:
    """Of which data, model and metric a result is: another value of it is a newer one."""
    return (*result.unique_identifier, result.metric_type, result.metric_name)


def _task(config: Mapping[str, Any]) -> str:
    """The hub's name of what the model was asked to do."""
    model = config.get("model")
    asked = model.get("task") if isinstance(model, dict) else None
    return "image-to-image" if asked in ("image-to-image", "inpainting") else "text-to-image"


def _section(name: str, run: Run, metrics: tuple[MetricRecord, ...]) -> str:
    """Heading and table of one run, and the warnings beneath."""
    lines = [f"### {_markdown(plain(name))}", ""]
    said = made_with(run)
    made = f": {_markdown(said)}" if said else ""
    lines += [f"{len(run):,} of {run.num_planned:,} samples{made}.", ""]
    levels = {m.interval.get("level", 0.95) for m in metrics if m.interval}
    spread = f"{100 * levels.pop():g} % interval" if len(levels) == 1 else "interval"
    lines.append(f"| metric | value | {spread} | n / expected | features | against |")
    lines.append("|---|--:|--:|--:|---|---|")
    for metric in metrics:
        features = f"{metric.extractor or ''} {(metric.fingerprint or '')[:8]}".strip()
        cells = (*row_of(metric), features, against(metric))
        lines.append("| " + " | ".join(_markdown(cell) for cell in cells) + " |")
    notes = [f"- {_markdown(note)}" for note in notes_of(metrics, most=len(metrics) * 10)]
    return "\n".join([*lines, "", *notes]).rstrip()


def _markdown(text: str) -> str:
    """Text that Markdown and HTML leave alone."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\|*_`[]{}$#":
        text = text.replace(character, "\\" + character if character != "#" else "&#35;")
    return text


def _shown(markdown: str) -> str:
    """The text behind what `_markdown` made of it, for a message."""
    return plain(html.unescape(markdown.replace("\\", "")), limit=96)


def _card(path: Path) -> ModelCard:
    """The card that is there, or an empty one."""
    from huggingface_hub import ModelCard

    try:
        with explained("read", path):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
        if not text.lstrip().startswith("---"):  # else it warns of a text without metadata
            text = f"---\n{{}}\n---\n{text}"
        return ModelCard(text)
    except Exception as error:  # yaml, unicode or its own errors, by what is wrong with the file
        raise ConfigError(
            f"{path}: expected a model card or no file, got one that cannot be read "
            f"({plain(error, limit=200)}). Choose another --output."
        ) from error


def _part(text: str) -> tuple[int, int]:
    """Where our part of a card begins and ends; -1 twice where there is none."""
    start, end = text.find(BEGIN), text.find(END)
    return (start, end + len(END)) if start != -1 and end > start else (-1, -1)


def _require_same_model(path: Path, text: str, heading: str) -> None:
    """Raise ConfigError where the card holds results of a model of another name."""
    start, end = _part(text)
    for line in text[start:end].splitlines() if start != -1 else ():
        if line.startswith(_HEADING) and line != heading:
            there, given = (_shown(each.removeprefix(_HEADING)) for each in (line, heading))
            raise ConfigError(
                f"{plain(path)}: expected no results, or those of '{given}', got results of "
                f"'{there}'. Name another --output, or the model as the card does: --model."
            )


def _with_part(text: str, part: str) -> str:
    """The card's text with our part in it, once."""
    start, end = _part(text)
    if start != -1:
        return text[:start] + part + text[end:]
    return (text.rstrip() + "\n\n" + part + "\n").lstrip("\n")

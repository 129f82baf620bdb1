"""What there is to choose from: parts by kind, and runs in a folder."""

from __future__ import annotations

from pathlib import Path

from evaluator import plugins
from evaluator.errors import ConfigError, EvaluatorError
from evaluator.features import BUILT_IN as EXTRACTORS
from evaluator.metrics.families import DEFAULT_EXTRACTORS, FAMILIES, PROPER_NAMES
from evaluator.runner.status import read_status
from evaluator.store.rundir import RunDirectory

MODELS = {
    "diffusers": "any diffusers pipeline",
    "images": "images that exist already",
    "optimal_denoiser": "the empirical-Bayes denoiser of a training set",
}
PROBES = {"attention": "attention statistics", "latents": "latent statistics"}


def list_lines(what: str) -> list[str]:
    """Lines for `ls what`: a kind of part, or a folder."""
    built_in = {
        "extractors": EXTRACTORS,
        "models": MODELS,
        "probes": PROBES,
        "metrics": _metrics(),
    }
    if what in built_in:
        parts = {**built_in[what], **plugins.installed(what.removesuffix("s"))}
        return [f"{name:24} {target}" for name, target in sorted(parts.items())]
    return _runs(Path(what))


def _metrics() -> dict[str, str]:
    """Name → what it takes and what it returns."""
    described = {}
    for name, entry in FAMILIES.items():
        spelled = name if name in DEFAULT_EXTRACTORS else f"{name}_<extractor>"
        results = ", ".join(entry.result_names).replace("{extractor}", "<extractor>")
        against = " against a reference" if entry.reference else ""
        against += " and a held-out set" if entry.held_out else ""
        options = ", ".join(entry.options)
        described[spelled] = f"from {entry.input}{against}: {results} (options: {options})"
    for name, family in PROPER_NAMES.items():
        described[name] = f"{family}_<extractor> on Inception features"
    return described


def _runs(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: expected a folder with runs, or one of extractors, metrics, models, "
            "probes; got nothing there."
        )
    lines = []
    for path in sorted(folder.iterdir()):
        if not (path / "init").is_dir():
            continue
        try:
            lines.append(f"{path.name:32} {read_status(RunDirectory.open(path)).lines()[0]}")
        except EvaluatorError as error:
            lines.append(f"{path.name:32} unreadable: {error}")
    return lines or [f"no runs in {folder}"]

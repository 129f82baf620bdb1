"""Making a study: what the runs have in common, the design, the images, a page for each rater."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from evaluator.durable import explained
from evaluator.errors import ConfigError, InputError
from evaluator.report.images import SampleId, fitted
from evaluator.report.text import plain
from evaluator.study.design import (
    Amounts,
    check_items,
    make_raters,
    pair_items,
    prompts_first,
    single_items,
)
from evaluator.study.forms import render_form
from evaluator.study.pictures import centred_square, data_address, made_alike, spoilt
from evaluator.study.records import ANSWERS, FORMS, KEY_FILE, Item, Kind, Shown, Source, Study
from evaluator.study.sources import (
    Images,
    RunImages,
    common_samples,
    names_of,
    open_reference,
)

DEFAULT_ITEMS = 50
"""Items where nobody says how many: about five to ten minutes."""

MAX_INSTRUCTIONS = 100_000
"""Bytes of a file of instructions."""

QUESTIONS: Mapping[Kind, str] = {
    "pairs": "Which image is better?",
    "real-or-generated": "Is this image real, or was it generated?",
}

INSTRUCTIONS: Mapping[Kind, tuple[str, ...]] = {
    "pairs": (
        "You will see two images at a time, and often the words that they were made from. Choose "
        "the one that answers the question above.",
        "Take as long as you need. Some questions may seem to return: answer them as you see them "
        "then.",
    ),
    "real-or-generated": (
        "You will see one image at a time. About half of them are real, the others were made by a "
        "computer.",
        "Take as long as you need. Some images may return: answer as you see them then.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRequest:
    """What a study is to be made from."""

    runs: Sequence[Path]
    kind: Kind = "pairs"
    reference: str | None = None
    """Real images: a run, a pack, or any source that can be packed."""
    items: int | None = None
    """Different items that every rater sees; None: 50, or as many as there are."""
    repeats: int | None = None
    """Items that every rater sees twice; None: a tenth of the items."""
    raters: int = 5
    checks: int = 0
    """Attention checks of pairs: an image beside the same one with its tiles shuffled."""
    seed: int = 0
    question: str | None = None
    instructions: Sequence[str] | None = None
    """Paragraphs above the first question: consent, instructions; None: a few words of ours."""
    side: int = 512
    """Longest side of the images on the form, in pixels."""
    ties: bool = True
    """Whether "no difference" may be answered to a pair."""
    show_prompts: bool = True
    """Whether pairs come with the prompt that they were made from."""


class MadeStudy(NamedTuple):
    """A study that was written."""

    study: Study
    forms: tuple[Path, ...]
    largest: int
    """Bytes of the largest form."""
    warnings: tuple[str, ...]


def make_study(request: StudyRequest, output: Path) -> MadeStudy:
    """Write `study.json`, `forms/rater-01.html`… and an empty `answers/` into a new folder."""
    _require_request(request)
    _require_empty(output)
    opened: list[Images] = [RunImages(path) for path in request.runs]
    sources = [
        Source(name, str(run.path.resolve()))
        for name, run in zip(names_of(request.runs), opened, strict=True)
    ]
    prompts, warnings = common_samples([run.prompts() for run in opened])
    real: list[SampleId] = []
    if request.reference is not None:
        opened.append(open_reference(request.reference))
        sources.append(Source("real", request.reference, real=True))
        real = prompts_first(opened[-1].prompts(), request.seed + 1)
    samples = prompts_first(prompts, request.seed)
    items = _items(request, samples, real)
    repeats = len(items) // 10 if request.repeats is None else request.repeats
    amounts = Amounts(len(items), repeats, request.raters, request.checks)
    items += check_items(samples, len(request.runs), request.checks)
    study = Study(
        kind=request.kind,
        question=plain(request.question or QUESTIONS[request.kind], limit=500),
        ties=request.kind == "pairs" and request.ties,
        seed=request.seed,
        side=request.side,
        sources=tuple(sources),
        items=tuple(items),
        raters=tuple(make_raters(items, request.kind, amounts, request.seed)),
    )
    addresses, said = _addresses(study, opened)
    texts = _texts(study, prompts) if request.show_prompts else {}
    forms, largest = _write(study, request, addresses, texts, output)
    return MadeStudy(study, forms, largest, (*warnings, *said))


def read_instructions(path: Path) -> tuple[str, ...]:
    """Paragraphs of a UTF-8 text file: blank lines part them. ConfigError for any other file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_INSTRUCTIONS + 1)
        if len(content) > MAX_INSTRUCTIONS:
            raise ValueError(f"more than {MAX_INSTRUCTIONS} bytes")
        text = content.decode()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--instructions {path}: expected a short UTF-8 text file, got: {error}"
        ) from error
    return tuple(plain(part) for part in re.split(r"\n\s*\n", text) if part.strip())


def _require_request(request: StudyRequest) -> None:
    faults = []
    least = 2 if request.kind == "pairs" else 1
    if len(request.runs) < least:
        faults.append(f"expected at least {least} runs for {request.kind}, got {len(request.runs)}")
    if request.kind == "pairs" and request.reference is not None:
        faults.append("--reference: expected none for pairs; add --kind real-or-generated")
    if request.kind == "real-or-generated" and request.reference is None:
        faults.append("--reference: expected real images for real-or-generated; name them")
    if request.kind != "pairs" and request.checks:
        faults.append("--checks: expected none for single images; nothing plainly worse is there")
    for name in ("items", "raters", "side"):
        number = getattr(request, name)
        if number is not None and number < 1:
            faults.append(f"--{name}: expected at least 1, got {number}")
    for name in ("repeats", "checks"):
        if (getattr(request, name) or 0) < 0:
            faults.append(f"--{name}: expected 0 or more, got {getattr(request, name)}")
    if faults:
        raise ConfigError("a study cannot be made of this:", tuple(faults))


def _require_empty(output: Path) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(
            f"{output}: expected a new or an empty folder, got something there: forms that were "
            "sent out can only be decoded by their own study.json. Choose another --output."
        )


def _items(
    request: StudyRequest, samples: Sequence[SampleId], real: Sequence[SampleId]
) -> list[Item]:
    num_runs = len(request.runs)
    if request.kind == "pairs":
        available = len(samples) * num_runs * (num_runs - 1) // 2
        return pair_items(samples, num_runs, request.items or min(DEFAULT_ITEMS, available))
    available = 2 * min(len(samples) * num_runs, len(real))
    return single_items(samples, num_runs, real, request.items or min(DEFAULT_ITEMS, available))


def _addresses(study: Study, opened: Sequence[Images]) -> tuple[dict[Shown, str], list[str]]:
    """Every image of the study as `data:`; InputError for those that cannot be read.

    Images of pairs are encoded as they come; single ones must be made alike first.
    """
    wanted = {shown for item in study.items for shown in item.images}
    addresses: dict[Shown, str] = {}
    singles: dict[Shown, Image.Image] = {}
    for source, images in enumerate(opened):
        samples = {SampleId(s.key, s.image_index) for s in wanted if s.source == source}
        for sample, image in images.read(samples):
            shown = Shown(source, *sample)
            if study.kind == "pairs":
                small = fitted(image, study.side)
                addresses[shown] = data_address(small)
                if (worse := Shown(source, *sample, spoilt=True)) in wanted:
                    addresses[worse] = data_address(spoilt(small, study.seed))
            else:
                singles[shown] = centred_square(image)
    _require_all(study, wanted, {*addresses, *singles})
    if study.kind == "pairs":
        return addresses, []
    alike, warnings = made_alike(singles, {shown: shown.source for shown in singles}, study.side)
    return {shown: data_address(image) for shown, image in alike.items()}, warnings


def _require_all(study: Study, wanted: set[Shown], found: set[Shown]) -> None:
    missing = sorted(wanted - found, key=lambda s: (s.source, s.key, s.image_index))
    if missing:
        named = [f"{study.sources[s.source].name}: {s.key}, image {s.image_index}" for s in missing]
        raise InputError(
            f"expected {len(wanted)} images, got {len(found)}; missing or unreadable:\n  - "
            + "\n  - ".join(named[:20])
            + "\n`evaluator status RUN --verify` finds damage, and the same `run` mends it."
        )


def _texts(study: Study, prompts: Mapping[SampleId, str | None]) -> dict[Shown, str]:
    """The words to show beside pairs; single images come without, for real ones have none."""
    if study.kind != "pairs":
        return {}
    first = [item.images[0] for item in study.items]
    texts = {s: plain(prompts[SampleId(s.key, s.image_index)] or "", limit=2000) for s in first}
    return {shown: text for shown, text in texts.items() if text}


def _write(
    study: Study,
    request: StudyRequest,
    addresses: Mapping[Shown, str],
    texts: Mapping[Shown, str],
    output: Path,
) -> tuple[tuple[Path, ...], int]:
    """Write the folder aside and rename it, so that no half of a study is sent out."""
    words = INSTRUCTIONS[study.kind] if request.instructions is None else request.instructions
    final = output.resolve()
    aside = final.with_name(f".{final.name}.{uuid.uuid4().hex}.aside")
    largest = 0
    try:
        with explained("write", output):
            for folder in (FORMS, ANSWERS):
                (aside / folder).mkdir(parents=True)
            for rater in study.raters:
                page = render_form(study, rater, addresses, texts, instructions=words)
                size = (aside / FORMS / f"{rater.name}.html").write_bytes(page.encode())
                largest = max(largest, size)
            key = json.dumps(study.record(), indent=1, ensure_ascii=True)
            (aside / KEY_FILE).write_text(key, encoding="utf-8")
            os.rename(aside, final)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return tuple(output / FORMS / f"{rater.name}.html" for rater in study.raters), largest

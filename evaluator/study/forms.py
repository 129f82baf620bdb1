"""The pages: one for each rater, complete in itself, without a word about runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluator.errors import ConfigError
from evaluator.report.frame import render_page
from evaluator.report.text import plain
from evaluator.study.records import Rater, Shown, Study

MAX_FORM_BYTES = 64 * 2**20
"""A page above this is refused: mail and browsers stop taking it."""

ANSWERS_FORMAT = "evaluator study answers"
"""How a file of answers is told from others."""

ANSWERS_VERSION = 1

BUTTONS = {
    "left": ("Left", "1", "←"),
    "tie": ("No difference", "2", "↓"),
    "right": ("Right", "3", "→"),
    "real": ("Real", "1", "←"),
    "generated": ("Generated", "2", "→"),
}
"""Answer → its button, its number key and its arrow key."""


def render_form(
    study: Study,
    rater: Rater,
    addresses: Mapping[Shown, str],
    prompts: Mapping[Shown, str],
    *,
    instructions: Sequence[str] = (),
) -> str:
    """The page of one rater. `addresses` are images as `data:`, `prompts` the texts to show.

    Images are numbered in the order in which the rater meets them, so that numbers say nothing.
    """
    numbers: dict[Shown, int] = {}
    trials: list[dict[str, Any]] = []
    for trial in rater.trials:
        images = study.items[trial.item].images
        shown = images[::-1] if trial.swapped else images
        places = [numbers.setdefault(image, len(numbers)) for image in shown]
        trials.append({"images": places, "prompt": prompts.get(images[0])})
    page = render_page(
        "study_form.html.j2",
        scripts=("study_form.js",),
        styles=("study_form.css",),
        title=plain(study.question),
        instructions=[plain(line) for line in instructions],
        answers=[(name, *BUTTONS[name]) for name in study.answers_allowed],
        sides=("left", "right") if study.kind == "pairs" else ("image",),
        num_trials=len(trials),
        form={
            "format": ANSWERS_FORMAT,
            "version": ANSWERS_VERSION,
            "study": study.id,
            "rater": rater.name,
            "trials": trials,
            "images": [addresses[image] for image in numbers],
        },
    )
    size = len(page.encode())
    if size > MAX_FORM_BYTES:
        raise ConfigError(
            f"expected a form of at most {MAX_FORM_BYTES // 2**20} MiB, got {size / 2**20:.0f} MiB "
            f"of {len(numbers)} images; lower --side or --items"
        )
    return page

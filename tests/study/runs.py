"""Small runs with kept images whose colour says which run, and raters who answer by a rule."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from evaluator.data.kept import sample_name, write_image_tar
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory
from evaluator.study.records import Study, Trial

HOSTILE = '<script>document.title="owned"</script> a sly \x1b[31mred\u202e one & "two"'
COLOURS = {
    "alpha": (220, 40, 30),
    "beta": (40, 190, 70),
    "gamma": (40, 70, 220),
    "real": (90, 90, 90),
}

Rule = Callable[[Study, Trial], str | None]


def picture(name: str, number: int, side: int) -> Image.Image:
    """The colour of the run, and a white bar as high as the sample's number."""
    pixels = np.full((side, side, 3), COLOURS[name], np.uint8)
    pixels[: 1 + number % side, side // 2] = 255
    return Image.fromarray(pixels)


def text_of(number: int) -> str:
    return HOSTILE if number == 0 else f"a prompt of number {number}"


def make_run(
    path: Path,
    *,
    colour: str | None = None,
    prompts: range = range(12),
    per_prompt: int = 1,
    side: int = 24,
    images: bool = True,
    error: int | None = None,
    text: Callable[[int], str] = text_of,
) -> Path:
    """A finished run of one shard; `colour` is the folder's name unless it is given."""
    samples = [
        (f"secretkey{number:03d}", index, number)
        for number in prompts
        for index in range(per_prompt)
    ]
    num = len(samples)
    plan = pa.table(
        {
            "shard": [0] * num,
            "key": [key for key, _, _ in samples],
            "image_index": [index for _, index, _ in samples],
            "seed": list(range(num)),
            "content": ["0" * 64] * num,
        },
        schema=schemas.PLAN,
    )
    run = RunDirectory.create(
        path, {"config.yaml": b"name: some\n", "provenance.json": b"{}"}, plan
    )
    rows = [
        {"key": key, "image_index": index, "seed": place, "prompt": text(number),
         "error": "undecodable" if number == error else None}
        for place, (key, index, number) in enumerate(samples)
    ]  # fmt: skip
    staged = run.stage("00000.0")
    table = pa.Table.from_pylist(rows, schema=schemas.SAMPLES)
    schemas.write_table(table, staged / "samples.parquet", kind="samples")
    names: dict[str, int | None] = {"samples.parquet": num}
    if images:
        items = []
        for key, index, number in samples:
            if number != error:
                out = io.BytesIO()
                picture(colour or path.name, number, side).save(out, "PNG")
                items.append((sample_name(key, index), "png", out.getvalue()))
        write_image_tar(staged / "images.tar", items)
        names["images.tar"] = None
    assert run.publish_shard(0, staged, names)
    return path


def prefer(*names: str) -> Rule:
    """Chooses the run that stands first in `names`; no difference between others."""

    def rule(study: Study, trial: Trial) -> str | None:
        images = [study.sources[shown.source].name for shown in study.items[trial.item].images]
        rank = [names.index(name) if name in names else len(names) for name in images]
        if rank[0] == rank[1]:
            return "tie"
        return "left" if (rank[0] < rank[1]) != trial.swapped else "right"

    return rule


def always(answer: str) -> Rule:
    return lambda study, trial: answer


def answers_of(study: Study, rater: int, rule: Rule, *, seconds: float = 2.5) -> dict[str, Any]:
    """What the form of a rater saves who answers by `rule`; None leaves a question out."""
    form = study.raters[rater]
    given = [
        {"trial": number, "answer": answer, "seconds": seconds}
        for number, trial in enumerate(form.trials, 1)
        if (answer := rule(study, trial)) is not None
    ]
    return {
        "format": "evaluator study answers", "version": 1, "study": study.id, "rater": form.name,
        "answers": given,
    }  # fmt: skip


def put_answers(folder: Path, name: str, record: object) -> Path:
    """A file of answers in the study's folder."""
    path = folder / "answers" / f"{name}.json"
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    return path

"""What a study is: items, raters, trials; and `study.json`, the key that decodes answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from evaluator.aggregate.summary import is_count, is_text
from evaluator.durable import explained
from evaluator.errors import InputError

FORMAT = 1
"""Version of study.json."""

KEY_FILE = "study.json"
"""Which image is whose. Raters must not see it."""

MAX_KEY_BYTES = 256 * 2**20
"""Of study.json: some hundred bytes a trial, so this is far above any study."""

FORMS = "forms"
"""The folder of the pages, one for each rater."""

ANSWERS = "answers"
"""The folder that answers are looked for in."""

Kind = Literal["pairs", "real-or-generated"]
KINDS: tuple[str, ...] = get_args(Kind)

LEFT, RIGHT, TIE, REAL, GENERATED = "left", "right", "tie", "real", "generated"


@dataclass(frozen=True, slots=True)
class Source:
    """Where images come from: a run, or real images."""

    name: str
    """Distinct in this study."""
    path: str
    real: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """One image that is shown."""

    source: int
    key: str
    image_index: int
    spoilt: bool = False
    """Whether its tiles are shuffled: the plainly worse image of an attention check."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to be judged: two images of one prompt, or one image."""

    images: tuple[Shown, ...]

    @property
    def check(self) -> bool:
        """Whether it only asks for attention: an image, and the same one spoilt."""
        return self.images[-1].spoilt


@dataclass(frozen=True, slots=True)
class Trial:
    """An item on a rater's form."""

    item: int
    swapped: bool
    """Whether the second image of the item is on the left."""
    repeat: bool
    """Whether the rater saw the item before."""


@dataclass(frozen=True, slots=True)
class Rater:
    """One form: trial 1 is `trials[0]`."""

    name: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that decodes the answers of a study."""

    kind: Kind
    question: str
    ties: bool
    """Whether "no difference" may be answered."""
    seed: int
    side: int
    """Longest side of the images on the form, in pixels."""
    sources: tuple[Source, ...]
    items: tuple[Item, ...]
    raters: tuple[Rater, ...]

    @property
    def id(self) -> str:
        """16 hexadecimal digits of SHA-256 over everything in it."""
        text = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def answers_allowed(self) -> tuple[str, ...]:
        """What may be answered to a trial."""
        if self.kind == "pairs":
            return (LEFT, TIE, RIGHT) if self.ties else (LEFT, RIGHT)
        return (REAL, GENERATED)

    @property
    def num_trials(self) -> int:
        """Answers expected of all raters together."""
        return sum(len(rater.trials) for rater in self.raters)

    def record(self) -> dict[str, Any]:
        """What study.json holds."""
        return {"format": FORMAT, "id": self.id, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Study:
        """The inverse of `record`; raises KeyError, TypeError or ValueError on anything else."""
        if record["format"] != FORMAT or record["kind"] not in KINDS:
            raise ValueError(f"format {record['format']!r} of kind {record['kind']!r}")
        study = cls(
            kind=record["kind"],
            question=record["question"],
            ties=record["ties"],
            seed=record["seed"],
            side=record["side"],
            sources=tuple(Source(**source) for source in record["sources"]),
            items=tuple(Item(tuple(Shown(**s) for s in i["images"])) for i in record["items"]),
            raters=tuple(
                Rater(rater["name"], tuple(Trial(**trial) for trial in rater["trials"]))
                for rater in record["raters"]
            ),
        )
        if study.id != record["id"]:
            raise ValueError(f"the id {record['id']!r} is not that of its content")
        _require_sound(study)
        return study


def read_study(folder: Path) -> Study:
    """The study of a folder that `evaluator study make` wrote; InputError for any other."""
    path = folder / KEY_FILE
    if not path.is_file():
        raise InputError(
            f"{folder}: expected the folder of a study (made by `evaluator study make`), got no "
            f"{KEY_FILE} in it. Check the path."
        )
    with explained("read", path), path.open("rb") as file:
        content = file.read(MAX_KEY_BYTES + 1)
    try:
        if len(content) > MAX_KEY_BYTES:
            raise ValueError(f"more than {MAX_KEY_BYTES >> 20} MiB")
        return Study.from_record(json.loads(content))
    except (
        ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise InputError(
            f"{path}: expected the key of a study, format {FORMAT}, as it was written, got "
            f"something else ({type(error).__name__}: {error}). Restore the file: without it "
            "nothing can be decoded."
        ) from error


def _require_sound(study: Study) -> None:
    """Raise ValueError unless every part is of its type and refers to what is there."""
    shown = [image for item in study.items for image in item.images]
    trials = [trial for rater in study.raters for trial in rater.trials]
    texts = [study.question, *(source.name for source in study.sources)]
    texts += [source.path for source in study.sources] + [rater.name for rater in study.raters]
    texts += [image.key for image in shown]
    flags = [study.ties, *(source.real for source in study.sources)]
    flags += [image.spoilt for image in shown]
    flags += [flag for trial in trials for flag in (trial.swapped, trial.repeat)]
    places = [(trial.item, len(study.items)) for trial in trials]
    places += [(image.source, len(study.sources)) for image in shown]
    places += [(image.image_index, 2**31) for image in shown]
    places += [(study.seed, 2**63), (study.side, 2**31)]
    names = [[source.name for source in study.sources], [rater.name for rater in study.raters]]
    sound = {
        "texts": all(isinstance(text, str) and is_text(text) for text in texts),
        "flags": all(isinstance(flag, bool) for flag in flags),
        "numbers": all(is_count(place) and place < end for place, end in places),
        "names, each once": all(each and len(set(each)) == len(each) for each in names),
        "images of each item": bool(study.items)
        and {len(item.images) for item in study.items} == {2 if study.kind == "pairs" else 1},
    }
    if not all(sound.values()):
        raise ValueError(f"no {', no '.join(name for name, is_so in sound.items() if not is_so)}")

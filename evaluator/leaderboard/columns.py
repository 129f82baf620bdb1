"""Which values stand in one column, and which of them may be ranked there.

Every question that two runs or more have answered has a column of its own. A run whose question
nobody shares stands in the largest column of that metric, is not ranked there, and says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluator.leaderboard.questions import UNKNOWN, Answer, Question
from evaluator.metrics.intervals import COVERS_MEAN

N_APART = 0.01
"""How far numbers of samples may lie apart, as a share, for values of sets to be ranked together.

The bias of a Fréchet distance goes with 1/n: this is one hundredth of it."""

NOT_COMPARABLE = "not comparable: "
"""What reasons begin with that say why a number must not be set against those of its column."""


@dataclass(slots=True)
class Draft:
    """A column before its ranks: one answer at most of each run."""

    id: str
    question: Question
    label: str = ""
    answers: dict[int, Answer] = field(default_factory=dict)
    """Place of a run → its number."""
    reasons: dict[int, str] = field(default_factory=dict)
    """Place of a run → why its number is not ranked."""
    groups: dict[tuple[str, str], dict[int, Answer]] = field(default_factory=dict)
    """Tag and value → the numbers of that group of samples."""

    @property
    def higher_is_better(self) -> bool | None:
        """Direction, which a number that failed does not tell."""
        said = [a.record.higher_is_better for a in self.answers.values()]
        return next((each for each in said if each is not None), None)

    @property
    def of_means(self) -> bool:
        """Whether the numbers are means over samples, whose size does not bias them."""
        intervals = [a.record.interval for a in self.answers.values() if a.record.interval]
        return bool(intervals) and all(
            str(each.get("covers", "")).startswith(COVERS_MEAN) for each in intervals
        )

    @property
    def n(self) -> int | None:
        """Samples of the ranked values: the number that most of them have, the larger of two."""
        sizes = Counter(self.answers[run].record.n for run in self.ranked)
        return max(sizes, key=lambda n: (sizes[n], n)) if sizes else None

    @property
    def ranked(self) -> list[int]:
        """Runs whose numbers are ranked."""
        return [run for run in self.answers if run not in self.reasons]


def draft_columns(
    answers: Sequence[Answer], *, metrics: Sequence[str] | None = None
) -> list[Draft]:
    """The columns of some answers, in the order in which the metrics first come.

    `metrics` keeps these alone, in that order.
    """
    wanted = [a for a in answers if metrics is None or a.record.name in metrics]
    order = list(metrics) if metrics is not None else []
    order += [a.record.name for a in wanted if a.record.name not in order]
    drafts: list[Draft] = []
    for metric in dict.fromkeys(order):
        mine = [a for a in wanted if a.record.name == metric]
        drafts += _of_metric(metric, mine)
    return drafts


def _of_metric(metric: str, answers: Sequence[Answer]) -> list[Draft]:
    whole = [a for a in answers if a.record.group is None]
    by_question: dict[Question, dict[int, Answer]] = {}
    for answer in whole:
        # asked twice in the same way, a number is the same
        by_question.setdefault(_joined(answer.question, whole), {}).setdefault(answer.run, answer)
    largest_first = sorted(by_question.items(), key=lambda item: -len(item[1]))
    drafts: list[Draft] = []
    for question, found in largest_first:
        if drafts and len(found) == 1:
            (run, answer), *_ = found.items()
            host = next((d for d in drafts if run not in d.answers), None)
            if host is not None:
                host.answers[run] = answer
                host.reasons[run] = NOT_COMPARABLE + _differences(question, host.question)
                continue
        drafts.append(Draft(f"{metric}#{len(drafts) + 1}", question, answers=dict(found)))
    if len(drafts) == 1:
        drafts[0].id = metric
    for draft in drafts:
        draft.label = _label(draft, drafts)
        _add_groups(draft, answers)
        _exclude(draft)
    return drafts


def _joined(question: Question, answers: Sequence[Answer]) -> Question:
    """The question, where the images were made elsewhere, with the prompts that all others have."""
    if question.prompts is not None:
        return question
    alike = {
        a.question for a in answers if _fields(a.question) | {"prompts": None} == _fields(question)
    }
    named = [each for each in alike if each.prompts is not None]
    return named[0] if len(named) == 1 else question


def _fields(question: Question) -> dict[str, Any]:
    return {name: getattr(question, name) for name in Question.__slots__}


_WORDS = {
    "extractor": "another extractor",
    "fingerprint": "another fingerprint of the extractor",
    "reference": "another reference",
    "reference_n": "another number of reference samples",
    "held_out": "another held-out set",
    "options": "other options",
    "prompts": "other prompts",
}


def _differences(one: Question, other: Question) -> str:
    """What sets a question apart, in words, with both sides where they are short."""
    mine, theirs = _fields(one), _fields(other)
    said = []
    for name, words in _WORDS.items():
        if mine[name] != theirs[name]:
            said.append(f"{words} ({_short(name, mine[name], theirs[name])})")
    return ", ".join(said)


def _short(name: str, mine: Any, theirs: Any) -> str:
    if name == "options":
        return f"{_set_options(mine, theirs)}, not {_set_options(theirs, mine)}"
    if name in ("fingerprint", "reference", "held_out", "prompts"):
        return f"{_eight(mine)}, not {_eight(theirs)}"
    return f"{mine}, not {theirs}"


def _eight(content: str | None) -> str:
    if content is None:
        return "none"
    return content if content.startswith(UNKNOWN) else content[:8]


def _set_options(mine: str, theirs: str) -> str:
    import json

    one, other = json.loads(mine), json.loads(theirs)
    apart = [k for k in one if one[k] != other.get(k, object())]
    return ", ".join(f"{k}={one[k]}" for k in apart) or "none"


def _label(draft: Draft, drafts: Sequence[Draft]) -> str:
    """The metric's name, and what sets this column apart from the metric's others."""
    mine, parts = _fields(draft.question), []
    for name in _WORDS:
        others = [_fields(d.question)[name] for d in drafts if d is not draft]
        if all(other == mine[name] for other in others):
            continue
        if name == "options":
            parts.append(_set_options(mine[name], next(o for o in others if o != mine[name])))
        elif name == "reference":
            called = next(iter(draft.answers.values())).reference
            parts.append(f"against {called} {_eight(mine[name])}")
        else:
            parts.append(f"{name.replace('_', ' ')} {_eight(str(mine[name]))}")
    metric = draft.question.metric
    return f"{metric} [{', '.join(parts)}]" if parts else metric


def _add_groups(draft: Draft, answers: Sequence[Answer]) -> None:
    for answer in answers:
        group = answer.record.group
        if not group or answer.run not in draft.answers or answer.run in draft.reasons:
            continue
        if answer.question == draft.answers[answer.run].question:
            for tag, value in group.items():
                draft.groups.setdefault((str(tag), str(value)), {})[answer.run] = answer


def _exclude(draft: Draft) -> None:
    """Say of each number that must not be ranked why; of the rest, those of another size."""
    for run, answer in draft.answers.items():
        record = answer.record
        if run in draft.reasons:
            continue
        if record.value is None:
            why = record.warnings[0] if record.warnings else "the run does not say why"
            draft.reasons[run] = f"no value: {why}"
        elif draft.higher_is_better is None:
            draft.reasons[run] = "neither direction is better"
        elif record.interval is None:
            draft.reasons[run] = "no interval: its noise is not known"
        elif record.n < (1 - N_APART) * record.n_expected:
            draft.reasons[run] = f"{NOT_COMPARABLE}{record.n:,} of {record.n_expected:,} samples"
    usual = draft.n
    if draft.of_means or usual is None:
        return
    for run in draft.ranked:
        n = draft.answers[run].record.n
        if abs(n - usual) > N_APART * usual:
            draft.reasons[run] = (
                f"{NOT_COMPARABLE}{n:,} samples, not {usual:,}; the value depends on their number"
            )


def excluded_alone(draft: Draft) -> None:
    """A run that is ranked with no other has no rank."""
    ranked = draft.ranked
    if len(ranked) == 1:
        draft.reasons[ranked[0]] = "no other run to be ranked with"


def asked_options(draft: Draft) -> Mapping[str, Any]:
    """Options of the metric that the configuration of its first run set."""
    return next(iter(draft.answers.values())).options

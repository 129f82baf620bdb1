"""The three claims about attention, as this run's tables bear them out or not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from evaluator.errors import ProbeError
from evaluator.probes.claims import NUM_SHUFFLES, Claim, bound, localised, sharpening
from evaluator.probes.words import colour_bindings, is_content
from evaluator.report.claim_tables import PAIR_COLUMNS, ClaimTables
from evaluator.report.curves import Moments

FILE = "claims.json"
FORMAT = 1
FEW_PROMPTS = 10
"""Below as many prompts an interval says little, and is said to."""
SIGNIFICANT = 0.05

_SAYS = {
    "localised": "Content words are looked at in fewer places than function words",
    "bound": "A colour shares its places with its own object more than with the other one",
    "sharpening": "Attention to content words concentrates as the noise falls",
}
_UNITS = {
    "localised": "entropy of function words − of content words",
    "bound": "soft IoU with its own object − with the other",
    "sharpening": "fall of entropy for a unit of log-SNR",
}
_LACKING = {
    "localised": "no prompt has both content words and function words",
    "bound": "no prompt names two coloured objects",
    "sharpening": "no prompt has content words at two known noise levels or more",
}
NO_PAIRS = (
    "no attention_pairs.parquet could be read: a run with probes.attention.pairs: true has it"
)
PAIR_KINDS = (
    "a colour and its own object",
    "a colour and another object",
    "other content words",
    "with a function word",
)
_MEASURES = PAIR_COLUMNS[3:]


class Told(NamedTuple):
    """One claim, fit to show."""

    name: str
    says: str
    unit: str
    claim: Claim | None
    words: str
    """What comes out, or why nothing does."""

    @property
    def verdict(self) -> str:
        """The same in a few words."""
        if self.claim is None or self.claim.num_prompts < 2:
            return "cannot be told"
        if self.claim.verdict == "holds" and self.claim.p_value > SIGNIFICANT:
            return "no more than shuffled tokens"
        return self.claim.verdict


class PairKind(NamedTuple):
    """How much words of one kind overlap: means over prompts."""

    kind: str
    num_prompts: int
    soft_iou: Moments
    cosine: Moments
    js: Moments


class ClaimsFound(NamedTuple):
    """Everything that the run says about the claims."""

    claims: tuple[Told, ...]
    kinds: tuple[PairKind, ...]
    num_prompts: int
    num_shards: int
    sampled: bool
    """Whether prompts with attention rows were left out."""


def claims_found(tables: ClaimTables) -> ClaimsFound | None:
    """The claims of the prompts that were taken; None where no prompt has attention rows."""
    if not tables.texts:
        return None
    by_token, by_level = pa.concat_tables(tables.by_token), pa.concat_tables(tables.by_level)
    pairs = pa.concat_tables(tables.pairs) if tables.pairs else None
    told = (
        _told("localised", lambda: localised(by_token)),
        _told("bound", lambda: bound(pairs, tables.texts))
        if pairs is not None
        else Told("bound", _SAYS["bound"], _UNITS["bound"], None, f"Cannot be told: {NO_PAIRS}."),
        _told("sharpening", lambda: sharpening(by_level)),
    )
    kinds = () if pairs is None else _pair_kinds(pairs, tables.texts)
    return ClaimsFound(told, kinds, len(tables.texts), tables.num_shards, tables.sampled)


def _told(name: str, compute: Any) -> Told:
    try:
        claim = compute()
    except ProbeError:
        words = f"Cannot be told: {_LACKING[name]}."
        return Told(name, _SAYS[name], _UNITS[name], None, words)
    return Told(name, _SAYS[name], _UNITS[name], claim, in_words(claim))


def in_words(claim: Claim) -> str:
    """What a claim's numbers come to: its verdict, and what makes it doubtful."""
    if claim.num_prompts < 2:
        return "Cannot be told: one prompt has no interval."
    few = f" {claim.num_prompts} prompts are few." if claim.num_prompts < FEW_PROMPTS else ""
    if claim.verdict == "holds":
        if claim.p_value > SIGNIFICANT:
            return (
                "The effect is there, but shuffled tokens show as much "
                f"(p = {claim.p_value:.2g}): it is not about these words.{few}"
            )
        return f"Holds.{few}"
    if claim.verdict == "the opposite holds":
        return f"The opposite holds.{few}"
    return f"Does not hold here: the interval reaches over zero.{few}"


def _pair_kinds(pairs: pa.Table, texts: dict[str, str]) -> tuple[PairKind, ...]:
    """Mean overlap by kind of pair: within a prompt first, then over prompts."""
    kinds: dict[str, dict[tuple[int, int], str]] = {
        key: _kinds(text) for key, text in texts.items()
    }
    values: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in pairs.to_pylist():
        ends = row["word"], row["other_word"]
        kind = kinds.get(row["key"], {}).get((min(ends), max(ends)))
        if kind is not None and None not in (row[measure] for measure in _MEASURES):
            of_prompt = values.setdefault((kind, row["key"]), {m: [] for m in _MEASURES})
            for measure in _MEASURES:
                of_prompt[measure].append(row[measure])
    found = []
    for kind in PAIR_KINDS:
        prompts = [lists for (named, _), lists in values.items() if named == kind]
        if prompts:
            means = (_over_prompts([lists[m] for lists in prompts]) for m in _MEASURES)
            found.append(PairKind(kind, len(prompts), *means))
    return tuple(found)


def _kinds(text: str) -> dict[tuple[int, int], str]:
    """(word, later word) of a prompt → kind of pair."""
    words = text.split()
    own, others = set(), set()
    for binding in colour_bindings(text):
        own.add(tuple(sorted((binding.colour, binding.own))))
        others.add(tuple(sorted((binding.colour, binding.other))))
    kinds = {}
    for i in range(len(words)):
        for j in range(i + 1, len(words)):
            content = is_content(words[i]) and is_content(words[j])
            kind = PAIR_KINDS[2] if content else PAIR_KINDS[3]
            kind = PAIR_KINDS[1] if (i, j) in others else kind
            kinds[i, j] = PAIR_KINDS[0] if (i, j) in own else kind
    return kinds


def _over_prompts(values: Sequence[Sequence[float]]) -> Moments:
    total = Moments(0, 0.0, 0.0)
    for one in values:
        total = total.merged(Moments(1, sum(one) / len(one), 0.0))
    return total


def as_json(found: ClaimsFound, num_planned: int) -> str:
    """The numbers on the page as a file beside it; null for what is not finite."""
    record = {
        "format": FORMAT,
        "from": ["attention.parquet", "attention_tokens.parquet", "attention_pairs.parquet"],
        "num_prompts": found.num_prompts,
        "num_shards": found.num_shards,
        "sampled": found.sampled,
        "num_samples_planned": num_planned,
        "num_shuffles": NUM_SHUFFLES,
        "claims": [
            {"name": t.name, "says": t.says, "unit": t.unit, "found": t.words, **_numbers(t.claim)}
            for t in found.claims
        ],
        "pair_kinds": list(_kind_records(found.kinds)),
    }
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _numbers(claim: Claim | None) -> dict[str, Any]:
    if claim is None:
        return {}
    values = {name: value for name, value in claim._asdict().items() if name != "name"}
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _kind_records(kinds: Sequence[PairKind]) -> Iterator[dict[str, Any]]:
    for kind in kinds:
        record: dict[str, Any] = {"kind": kind.kind, "num_prompts": kind.num_prompts}
        for measure in _MEASURES:
            moments: Moments = getattr(kind, measure)
            half = moments.half_width if moments.num > 1 else None
            record[measure] = {"mean": moments.mean, "half_width": half}
        yield record

"""Who sees what, on which side, in which order: balanced, seeded, and kept from the raters.

Every rater sees every item once, and some of them once more. Items are shared out so that every
pair of runs (or every run) comes equally often, give or take one; within each rater and pair, and
over the raters of each item, either image is on the left equally often, give or take one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import gcd

import numpy as np

from evaluator.errors import ConfigError
from evaluator.report.images import SampleId
from evaluator.seeds import stream_seed
from evaluator.study.records import Item, Kind, Rater, Shown, Trial


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is asked of how many."""

    items: int
    """Different items that every rater sees."""
    repeats: int
    """Of these, how many every rater sees once more."""
    raters: int
    checks: int = 0
    """Attention checks that every rater meets besides."""

    def __post_init__(self) -> None:
        if self.repeats > self.items // 3:
            raise ConfigError(
                f"--repeats: expected at most a third of the {self.items} items, got "
                f"{self.repeats}: a repeated item returns in the last third of a form, so that it "
                "is not remembered; lower it, or ask more items"
            )


def shared_out(num: int, num_samples: int, num_options: int) -> list[tuple[int, int]]:
    """`num` different (sample, option), each option equally often, each sample too, ±1.

    Both count on together, and where they would meet again, options step ahead by one.
    """
    period = num_samples * num_options // gcd(num_samples, num_options)
    return [(i % num_samples, (i + i // period) % num_options) for i in range(num)]


def prompts_first(samples: Iterable[SampleId], seed: int) -> list[SampleId]:
    """A seeded order in which no prompt comes twice before every prompt came once.

    More prompts say more about prompts in general than more images of the same ones do.
    """
    ordered = sorted(samples)
    generator = np.random.default_rng(stream_seed(seed, "study", "samples"))
    shuffled = [ordered[i] for i in generator.permutation(len(ordered))]
    seen: dict[str, int] = {}
    turns = []
    for place, sample in enumerate(shuffled):
        turns.append((seen.get(sample.key, 0), place, sample))
        seen[sample.key] = seen.get(sample.key, 0) + 1
    return [sample for _, _, sample in sorted(turns)]


def pair_items(samples: Sequence[SampleId], num_runs: int, num: int) -> list[Item]:
    """`num` items of two images each: one sample, as two of the runs made it."""
    pairs = list(combinations(range(num_runs), 2))
    _require(num, len(samples) * len(pairs), "pairs of images")
    return [
        Item(tuple(Shown(run, *samples[sample]) for run in pairs[pair]))
        for sample, pair in shared_out(num, len(samples), len(pairs))
    ]


def single_items(
    samples: Sequence[SampleId], num_runs: int, real: Sequence[SampleId], num: int
) -> list[Item]:
    """`num` items of one image each: half of them real, the rest shared among the runs.

    Runs are the sources from 0; the real images are the source after them.
    """
    num_generated = (num + 1) // 2
    _require(num_generated, len(samples) * num_runs, "generated images (half of the items)")
    _require(num - num_generated, len(real), "real images (half of the items)")
    made = shared_out(num_generated, len(samples), num_runs)
    return [
        *(Item((Shown(run, *samples[sample]),)) for sample, run in made),
        *(Item((Shown(num_runs, *sample),)) for sample in real[: num - num_generated]),
    ]


def check_items(samples: Sequence[SampleId], num_runs: int, num: int) -> list[Item]:
    """`num` attention checks: an image of one of the runs beside the same one spoilt.

    The last samples are taken, which the other items need last.
    """
    _require(num, len(samples) * num_runs, "attention checks")
    last = samples[::-1]
    return [
        Item((Shown(run, *last[sample]), Shown(run, *last[sample], spoilt=True)))
        for sample, run in shared_out(num, len(samples), num_runs)
    ]


def _require(wanted: int, found: int, what: str) -> None:
    if wanted > found:
        raise ConfigError(
            f"--items: expected at most what the runs have, {found} different {what}, got "
            f"{wanted}; lower it, or make more samples"
        )


def make_raters(items: Sequence[Item], kind: Kind, amounts: Amounts, seed: int) -> list[Rater]:
    """Each rater's trials in order: an order, sides and repetitions of their own.

    The last `amounts.checks` of the items are attention checks; none of them comes first, and none
    returns.
    """
    num_asked = len(items) - amounts.checks
    generator = np.random.default_rng(stream_seed(seed, "study", "sides"))
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, item in enumerate(items[:num_asked]):
        groups.setdefault(tuple(shown.source for shown in item.images), []).append(number)
    starts = {}
    for numbers in groups.values():
        offset = int(generator.integers(2))
        for place, i in enumerate(generator.permutation(len(numbers))):
            starts[numbers[i]] = place + offset
    raters = []
    for number in range(amounts.raters):
        swapped = [kind == "pairs" and (starts[i] + number) % 2 == 1 for i in range(num_asked)]
        order = np.random.default_rng(stream_seed(seed, "study", "order", number))
        trials = _trials(swapped, kind, amounts.repeats, order)
        for check in range(num_asked, len(items)):
            trial = Trial(check, bool(order.integers(2)), repeat=False)
            trials.insert(int(order.integers(1, len(trials) + 1)), trial)
        raters.append(Rater(f"rater-{number + 1:02d}", tuple(trials)))
    return raters


def _trials(
    swapped: Sequence[bool], kind: Kind, repeats: int, generator: np.random.Generator
) -> list[Trial]:
    """Every item in a drawn order; items of the first third return in the last, sides swapped.

    The other side lets a rater who always takes the left one disagree with themself.
    """
    num = len(swapped)
    order = generator.permutation(num).tolist()
    trials = [Trial(item, swapped[item], repeat=False) for item in order]
    again = generator.choice(num // 3, repeats, replace=False).tolist() if repeats else []
    late = trials[num - num // 3 :]
    for place in again:
        first = trials[place]
        other_side = not first.swapped if kind == "pairs" else False
        late.append(Trial(first.item, other_side, repeat=True))
    return trials[: num - num // 3] + [late[i] for i in generator.permutation(len(late))]

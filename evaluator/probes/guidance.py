"""How a pipeline batches guidance, found out by changing its inputs and seeing which rows change.

Three first steps of two samples are compared: one as it is, one with other prompts, one with
another seed for the first sample. A row of the denoiser whose inputs follow the prompt is
conditional, the others are not; a row whose latents follow the first seed is the first sample's.
No pipeline is known by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from evaluator.errors import ProbeError
from evaluator.text import count_of

if TYPE_CHECKING:
    from torch import Tensor

    from evaluator.probes.first_step import DenoiserCall, FirstStep


NUM_SAMPLES = 2


class Row(NamedTuple):
    """One row of the denoiser's batch."""

    sample: int
    """0 or 1."""
    conditional: bool
    """Whether anything in it follows the prompt."""


class GuidanceLayout(NamedTuple):
    """The denoiser's calls in one step of two samples."""

    calls: tuple[tuple[Row, ...], ...]

    @property
    def branches(self) -> tuple[str, ...]:
        """`conditional` or `unconditional`, in the order in which they are computed."""
        names = []
        for row in (row for rows in self.calls for row in rows if row.sample == 0):
            names.append("conditional" if row.conditional else "unconditional")
        return tuple(names)

    def sentence(self) -> str:
        """In words: how many calls, of how many rows, in which order."""
        counts = [len(rows) // NUM_SAMPLES for rows in self.calls]
        each = "N rows" if counts[0] == 1 else f"{counts[0]}N rows"
        calls = f"{count_of(len(counts), 'call')} of {each}"
        if len(self.branches) == 1:
            told = "follows the prompt" if self.branches[0] == "conditional" else "takes no prompt"
            return f"none: {calls}, which {told}"
        if "conditional" not in self.branches:
            return f"{calls}, none of which follows the prompt: it is cut off, or never encoded"
        mixed = any(
            [row.sample for row in rows] != [i // counts[0] for i in range(len(rows))]
            and [row.sample for row in rows] != [i % 2 for i in range(len(rows))]
            for rows in self.calls
        )
        interleaved = any(
            count > 1 and [row.sample for row in rows] == [i // count for i in range(len(rows))]
            for count, rows in zip(counts, self.calls, strict=True)
        )
        how = ", sample by sample" if interleaved else (", in mixed order" if mixed else "")
        return f"{calls}: {', then '.join(self.branches)}{how}"


def guidance_layout(
    base: FirstStep, other_prompts: FirstStep, other_seed: FirstStep
) -> GuidanceLayout:
    """The layout of two samples' rows; ProbeError where the three runs cannot be compared."""
    if not len(base.calls) == len(other_prompts.calls) == len(other_seed.calls):
        raise ProbeError("Expected as many denoiser calls whatever the prompt and seed.")
    calls = []
    for here, told, seeded in zip(base.calls, other_prompts.calls, other_seed.calls, strict=True):
        follows_prompt = _changed_rows(here, told)
        follows_seed = _changed(here.latents, seeded.latents)
        calls.append(
            tuple(
                Row(0 if seed else 1, text)
                for seed, text in zip(follows_seed, follows_prompt, strict=True)
            )
        )
    return GuidanceLayout(tuple(calls))


def _changed_rows(here: DenoiserCall, there: DenoiserCall) -> list[bool]:
    """For each row, whether any input but the latents differs."""
    changed = [False] * here.num_rows
    for name, values in here.inputs.items():
        other = there.inputs.get(name)
        if other is None or values.ndim == 0 or values.shape[0] != here.num_rows:
            continue
        if other.shape != values.shape and here.num_rows == NUM_SAMPLES:
            return [True] * NUM_SAMPLES  # a call of one branch, whose text has another length
        if other.shape != values.shape:
            raise ProbeError(
                f"Expected inputs of one shape for prompts of one length; {name} is "
                f"{tuple(values.shape)} and {tuple(other.shape)}. Give a prompt whose words, in "
                "reverse order, make as many tokens."
            )
        changed = [was or now for was, now in zip(changed, _changed(values, other), strict=True)]
    return changed


def _changed(here: Tensor, there: Tensor) -> list[bool]:
    """(R,) whether row r of one differs from row r of the other."""
    flags: list[bool] = (
        (here != there)
        .flatten(1 if here.ndim > 1 else 0)
        .reshape(here.shape[0], -1)
        .any(dim=1)
        .tolist()
    )
    return flags

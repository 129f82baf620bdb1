"""Cut one attention call down to what the image looks for in the prompt's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from evaluator.errors import ProbeError
from evaluator.pipelines import denoiser_of
from evaluator.probes.attention_statistics import indices
from evaluator.probes.boundaries import AttentionCall
from evaluator.probes.layers import Grid, Order, family_of, grid_of, image_grid

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TextColumns:
    """Which text positions are tokens of the prompts, in the run at hand."""

    image: Grid
    """The denoiser's image positions, before any halving."""
    num_text: int
    """Text positions, padding included."""
    positions: Tensor
    """(T,) int64: text positions that some prompt of the batch has a token at, ascending."""
    present: Tensor
    """(B, T) bool: which of them belong to which prompt."""
    lengths: tuple[int, ...] = ()
    """(B,): text positions of each row, where rows are packed."""

    @classmethod
    def none(cls) -> TextColumns:
        """Before the run begins."""
        nothing = torch.zeros(0, dtype=torch.int64)
        return cls(Grid(0, 0), 0, nothing, torch.zeros(0, 0, dtype=torch.bool))

    def of_rows(self, rows: Sequence[int]) -> TextColumns:
        """The same text positions, for some of the rows."""
        lengths = tuple(self.lengths[row] for row in rows) if self.lengths else ()
        return replace(self, present=self.present[list(rows)], lengths=lengths)


def text_columns(
    pipeline: Any,
    inputs: Mapping[str, Any],
    latents: Tensor,
    rows: slice,
    places: Sequence[Sequence[int]],
    num_positions: int,
) -> TextColumns:
    """Where the tokens of a batch stand, and how large its images are.

    `inputs` are the keywords of the denoiser's call, `rows` its conditional branch; `places` (B)
    the text positions of each row's tokens, `num_positions` those of all rows with padding.
    """
    sets = [set(row) for row in places]
    positions = sorted(set().union(*sets))
    lengths: tuple[int, ...] = ()
    if family_of(pipeline).order == "packed":
        lengths = tuple(inputs["encoder_attention_mask"][rows].sum(dim=1).tolist())
    return TextColumns(
        image=image_grid(denoiser_of(pipeline), latents, inputs),
        num_text=num_positions,
        positions=torch.tensor(positions, device=latents.device),
        present=torch.tensor(
            [[p in row for p in positions] for row in sets], device=latents.device
        ),
        lengths=lengths,
    )


def of_rows(call: AttentionCall, rows: Sequence[int]) -> AttentionCall:
    """Some rows of a call."""
    chosen = indices(rows, call.query.device)
    mask, normaliser = call.mask, call.normaliser
    return call._replace(
        query=call.query.index_select(0, chosen),
        key=call.key.index_select(0, chosen),
        mask=mask.index_select(0, chosen) if mask is not None and mask.shape[0] > 1 else mask,
        normaliser=normaliser.index_select(0, chosen) if normaliser is not None else None,
    )


def image_to_text(
    order: Order, call: AttentionCall, columns: TextColumns, layer: str
) -> tuple[Grid, AttentionCall]:
    """The queries of the image, the keys of the tokens, and the mask and normaliser to match.

    query (B, heads, N, D), key (B, heads, T, D); mask broadcasts to (B, heads, N, T).
    """
    assert call.normaliser is not None
    if order == "packed":
        return columns.image, _unpacked(call, columns)
    image = columns.image
    if order == "cross":
        grid = grid_of(call.query.shape[2], height=image.height, width=image.width)
        _expect(call.key.shape[2], columns.num_text, layer)
        return grid, _columns_of(call, columns.positions.to(call.key.device))
    num_image = image.num_positions
    num_text = columns.num_text
    _expect(call.key.shape[2] - num_image, num_text, layer)
    first_image, first_text = (0, num_image) if order == "image-text" else (num_text, 0)
    rows = slice(first_image, first_image + num_image)
    mask = call.mask
    if mask is not None and mask.shape[-2] > 1:
        mask = mask[..., rows, :]
    cut = call._replace(
        query=call.query[:, :, rows], mask=mask, normaliser=call.normaliser[:, :, rows]
    )
    return image, _columns_of(cut, columns.positions.to(call.key.device) + first_text)


def _columns_of(call: AttentionCall, positions: Tensor) -> AttentionCall:
    """Keys and mask at these positions."""
    mask = call.mask
    if mask is not None and mask.shape[-1] > 1:
        mask = mask.index_select(-1, positions)
    return call._replace(key=call.key.index_select(2, positions), mask=mask)


def _unpacked(call: AttentionCall, columns: TextColumns) -> AttentionCall:
    """Each row's image follows its own text; the padding after both needs no mask then.

    Columns that a row has no token at hold another's place, and are absent in `present`.
    """
    num_image = columns.image.num_positions
    assert call.normaliser is not None
    queries, normalisers = [], []
    for row, length in enumerate(columns.lengths):
        queries.append(call.query[row, :, length : length + num_image])
        normalisers.append(call.normaliser[row, :, length : length + num_image])
    positions = columns.positions.to(call.key.device)
    return AttentionCall(
        torch.stack(queries),
        call.key.index_select(2, positions),
        None,
        call.scale,
        torch.stack(normalisers),
    )


def _expect(got: int, expected: int, layer: str) -> None:
    if got != expected:
        raise ProbeError(
            f"Expected {expected} text positions, as the prompts were encoded; {layer} attends to "
            f"{got}. Let the pipeline encode the prompts itself, or remove attention from the "
            "probes."
        )

"""Tables that fit a terminal: texts are shortened, then columns left out, and both is said."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from evaluator.report.table import GAP, aligned, columns_of

SHORTEST = 16
"""Columns that a shortened text keeps at least."""


def fitted(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    beneath: Sequence[Sequence[str]],
    *,
    width: int | None,
    rigid: Collection[int] = (),
    drop: Sequence[int] | None = None,
    elsewhere: str = "a wider terminal shows them",
) -> str:
    """`aligned`, no wider than `width` (None: as wide as it takes).

    Texts in columns that are not `rigid` may be shortened. Columns are left out in the order of
    `drop`, else from the last one on; the first stays. A line at the end says what was left out
    and where it is found.
    """
    if width is None:
        return aligned(titles, rows, beneath)
    natural = [max(columns_of(line[i]) for line in (titles, *rows)) for i in range(len(titles))]
    least = [
        size if i in rigid else max(columns_of(titles[i]), min(size, SHORTEST))
        for i, size in enumerate(natural)
    ]
    order = list(drop if drop is not None else range(len(titles) - 1, 0, -1))
    kept = list(range(len(titles)))
    while _total(least, kept) > width and order:
        kept.remove(order.pop(0))
    sizes = _shared_out(natural, least, kept, width)
    lines = [[cut(line[i], sizes[i]) for i in kept] for line in (titles, *rows)]
    text = aligned(lines[0], lines[1:], beneath, width=width)
    missing = [titles[i] for i in range(len(titles)) if i not in kept]
    if missing:
        named = f"left out to fit {width} columns: {', '.join(t.strip() for t in missing)}"
        text += "\n" + aligned_note(f"{named}; {elsewhere}", width)
    return text


def aligned_note(note: str, width: int) -> str:
    """A sentence beneath a table."""
    import textwrap

    return textwrap.fill(note, min(width, 100), subsequent_indent="  ", break_on_hyphens=False)


def _total(sizes: Sequence[int], kept: Sequence[int]) -> int:
    return sum(sizes[i] for i in kept) + GAP * (len(kept) - 1)


def _shared_out(
    natural: Sequence[int], least: Sequence[int], kept: Sequence[int], width: int
) -> list[int]:
    """Sizes of all columns: what is left goes to the shortened ones, from the first on."""
    sizes = list(least)
    for i in kept:
        sizes[i] = min(natural[i], sizes[i] + max(0, width - _total(sizes, kept)))
    over = _total(sizes, kept) - width
    if over > 0:  # the first column alone is too wide
        sizes[kept[0]] = max(1, sizes[kept[0]] - over)
    return sizes


def cut(text: str, size: int) -> str:
    """A line in at most `size` columns of the terminal."""
    if columns_of(text) <= size:
        return text
    while text and columns_of(text) > size - 1:
        text = text[:-1]
    return text + "…"

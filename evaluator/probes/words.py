"""What kind of word a token belongs to, and which colour goes with which object."""

from __future__ import annotations

from typing import NamedTuple

FUNCTION_WORDS = frozenset(
    {
        *("a", "an", "the", "this", "that", "these", "those", "it", "its", "there"),
        *("of", "on", "in", "at", "by", "for", "from", "to", "with", "without", "as", "near"),
        *("into", "onto", "over", "under", "and", "or", "is", "are", "was", "were", "be"),
    }
)
"""Words that name nothing to be seen; they and punctuation are not content."""

COLOUR_WORDS = frozenset(
    {
        *("black", "white", "red", "green", "yellow", "blue", "brown", "purple", "pink", "orange"),
        *("grey", "gray", "cyan", "magenta", "violet", "golden", "silver", "turquoise"),
    }
)
"""The basic colour terms of English (Berlin and Kay 1969), and a few more that prompts use."""


class Binding(NamedTuple):
    """A colour, the object that it belongs to, and another that it does not; word indices."""

    colour: int
    own: int
    other: int


def is_content(word: str) -> bool:
    """Whether a word names something that could be seen."""
    plain = word.strip(".,;:!?\"'()").lower()
    return bool(plain) and plain not in FUNCTION_WORDS


def colour_bindings(text: str) -> tuple[Binding, ...]:
    """The bindings of a prompt with several coloured objects; none where there are fewer than two.

    A colour belongs to the next word that is neither a colour nor a function word: "a red seven
    on a blue background" binds red to seven and blue to background.
    """
    words = [word.strip(".,;:!?\"'()").lower() for word in text.split()]
    owners: dict[int, int] = {}
    for place, word in enumerate(words):
        if word not in COLOUR_WORDS:
            continue
        rest = range(place + 1, len(words))
        found = [i for i in rest if is_content(words[i]) and words[i] not in COLOUR_WORDS]
        if found:
            owners[place] = found[0]
    return tuple(
        Binding(colour, own, other)
        for colour, own in owners.items()
        for other in sorted(set(owners.values()) - {own})
    )

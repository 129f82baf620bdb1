"""Three claims about attention, put to the tables of a run: does it hold here, and by how much.

    localised   content words are looked at in fewer places than function words
    bound       a colour shares its places with its own object more than with the other one
    sharpening  attention to content words concentrates as the noise falls

Each is a contrast that is positive where the claim holds, averaged within a prompt; effect and
interval are over prompts. The null shuffles which token is which within every prompt, and keeps
everything else: the layers, the steps and the prompt's own maps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from evaluator.errors import ProbeError
from evaluator.probes.words import Binding, colour_bindings, is_content

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_SHUFFLES = 999
LEVEL = 0.95

Row = Mapping[str, Any]
Contrast = Callable[[np.random.Generator | None], float]
"""One prompt's contrast; with a generator, that of shuffled tokens."""


class Claim(NamedTuple):
    """What a run says about one claim."""

    name: str
    effect: float
    """Mean contrast over prompts; above 0 where the claim holds."""
    low: float
    high: float
    """95 % interval of the effect over prompts (Student's t); infinite below two prompts."""
    standardised: float
    """Effect over the standard deviation between prompts (Cohen's d of paired data)."""
    num_prompts: int
    null: float
    """Mean effect of shuffled tokens."""
    p_value: float
    """Share of shuffles with an effect at least as large (one-sided, Phipson and Smyth 2010)."""

    @property
    def verdict(self) -> str:
        """In words: `holds`, `does not hold`, `the opposite holds`."""
        if self.low > 0:
            return "holds"
        return "the opposite holds" if self.high < 0 else "does not hold"


def claims(
    attention: pa.Table,
    tokens: pa.Table,
    *,
    pairs: pa.Table | None = None,
    texts: Mapping[Any, str] | None = None,
    seed: int = 0,
    shuffles: int = NUM_SHUFFLES,
) -> tuple[Claim, ...]:
    """All three claims of a run's tables `attention`, `attention_tokens` and `attention_pairs`.

    `texts` are the prompts by key (by place in the batch, for tables without a key). Without
    `pairs` nothing is said about colours.
    """
    table = with_words(attention, tokens)
    found = [localised(table, seed=seed, shuffles=shuffles)]
    if pairs is not None:
        found.append(bound(pairs, texts or {}, seed=seed, shuffles=shuffles))
    found.append(sharpening(table, seed=seed, shuffles=shuffles))
    return tuple(found)


def localised(attention: pa.Table, *, seed: int = 0, shuffles: int = NUM_SHUFFLES) -> Claim:
    """Mean entropy of function words − mean entropy of content words, of each prompt.

    `attention` has `key`, `layer`, `step`, `token`, `word`, `word_text` and `entropy`: see
    `with_words`. Prompts without both kinds of words say nothing.
    """
    contrasts: list[Contrast] = []
    for rows in _by_key(attention):
        by_token: dict[int, list[float]] = defaultdict(list)
        kinds: dict[int, bool] = {}
        for row in rows:
            if _is_word(row) and row["entropy"] is not None:
                by_token[row["token"]].append(row["entropy"])
                kinds[row["token"]] = is_content(row["word_text"])
        values = np.array([np.mean(found) for found in by_token.values()])
        content = np.array([kinds[token] for token in by_token], bool)
        if content.any() and not content.all():
            contrasts.append(_difference(values, content))
    return _claim("localised", contrasts, seed, shuffles)


def bound(
    pairs: pa.Table,
    texts: Mapping[Any, str],
    *,
    measure: str = "soft_iou",
    seed: int = 0,
    shuffles: int = NUM_SHUFFLES,
) -> Claim:
    """Overlap of a colour with its own object − that with the other, mean over the bindings.

    `pairs` is the table `attention_pairs` with `key`; `texts` are the prompts by key, of which
    those with two coloured objects count. `measure`: `soft_iou` or `cosine`.

    A denoiser with random weights shows this, too, where the text encoder makes neighbours alike:
    compare with one before it is called learned.
    """
    contrasts: list[Contrast] = []
    for rows in _by_key(pairs):
        text = texts.get(rows[0]["key"], "")
        bindings = colour_bindings(text)
        words = text.split()
        content = [i for i, word in enumerate(words) if is_content(word)]
        if bindings:
            contrasts.append(_binding(_overlaps(rows, measure, len(words)), bindings, content))
    return _claim("bound", contrasts, seed, shuffles)


def sharpening(attention: pa.Table, *, seed: int = 0, shuffles: int = NUM_SHUFFLES) -> Claim:
    """− slope of the entropy of content words over log-SNR, within a layer, mean over layers.

    In shares of the largest entropy per unit of log-SNR. Shuffled tokens are any words of the
    prompt: the null tells whether content words sharpen more than words do. Steps without a
    finite log-SNR say nothing; nor do layers that were seen at fewer than two.
    """
    contrasts: list[Contrast] = []
    for rows in _by_key(attention):
        series: dict[tuple[int, str], dict[float, list[float]]] = {}
        kinds: dict[int, bool] = {}
        for row in rows:
            level = row["log_snr"]
            if not _is_word(row) or row["entropy"] is None or level is None:
                continue
            if math.isfinite(level):
                line = series.setdefault((row["token"], row["layer"]), defaultdict(list))
                line[level].append(row["entropy"])
                kinds[row["token"]] = is_content(row["word_text"])
        slopes: dict[int, list[float]] = defaultdict(list)
        for (token, _), line in series.items():
            if len(line) > 1:
                means = [float(np.mean(found)) for found in line.values()]
                slopes[token].append(-float(np.polyfit(list(line), means, 1)[0]))
        values = np.array([np.mean(found) for found in slopes.values()])
        content = np.array([kinds[token] for token in slopes], bool)
        if content.any():
            contrasts.append(_chosen(values, content))
    return _claim("sharpening", contrasts, seed, shuffles)


def with_words(attention: pa.Table, tokens: pa.Table) -> pa.Table:
    """The table `attention` with the column `word_text` of `attention_tokens`, by key and token."""
    ids = [name for name in ("key", "image_index", "sample") if name in attention.column_names]
    named = {
        tuple(row[name] for name in (*ids, "token")): row["word_text"] for row in tokens.to_pylist()
    }
    rows = attention.select([*ids, "token"]).to_pylist()
    found = [named.get(tuple(row[name] for name in (*ids, "token"))) for row in rows]
    return attention.append_column("word_text", pa.array(found, pa.string()))


def _is_word(row: Row) -> bool:
    return row["word_text"] is not None


def _by_key(table: pa.Table) -> list[list[Row]]:
    """The rows of each prompt, all its images together, in order of appearance."""
    name = "key" if "key" in table.column_names else "sample"
    found: dict[Any, list[Row]] = {}
    for row in table.to_pylist():
        found.setdefault(row[name], []).append({**row, "key": row[name]})
    return list(found.values())


def _difference(values: NDArray[np.float64], content: NDArray[np.bool_]) -> Contrast:
    def contrast(shuffle: np.random.Generator | None) -> float:
        chosen = content if shuffle is None else shuffle.permutation(content)
        return float(values[~chosen].mean() - values[chosen].mean())

    return contrast


def _chosen(values: NDArray[np.float64], content: NDArray[np.bool_]) -> Contrast:
    def contrast(shuffle: np.random.Generator | None) -> float:
        chosen = content if shuffle is None else shuffle.permutation(content)
        return float(values[chosen].mean())

    return contrast


def _overlaps(rows: Sequence[Row], measure: str, num_words: int) -> NDArray[np.float64]:
    """(W, W): mean overlap of every two words over their tokens, steps, layers and images."""
    sums, counts = np.zeros((2, num_words, num_words))
    for row in rows:
        value, one, other = row[measure], row["word"], row["other_word"]
        if isinstance(value, float) and math.isfinite(value) and one != other:
            for place in ((one, other), (other, one)):
                sums[place] += value
                counts[place] += 1
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = sums / counts
    return means


def _binding(
    overlaps: NDArray[np.float64], bindings: Sequence[Binding], content: Sequence[int]
) -> Contrast:
    def contrast(shuffle: np.random.Generator | None) -> float:
        named = dict(zip(content, content, strict=True))
        if shuffle is not None:
            named = dict(zip(content, shuffle.permutation(content).tolist(), strict=True))
        found = [
            overlaps[named[b.colour], named[b.own]] - overlaps[named[b.colour], named[b.other]]
            for b in bindings
        ]
        return float(np.mean(found))

    return contrast


def _claim(name: str, contrasts: Sequence[Contrast], seed: int, shuffles: int) -> Claim:
    """Effect and interval over prompts, and the same effect of shuffled tokens."""
    if not contrasts:
        raise ProbeError(
            f"Expected prompts that the claim '{name}' says something about; got none. It takes "
            "content and function words (localised), two coloured objects (bound), or content "
            "words at two noise levels or more (sharpening)."
        )
    from scipy import stats

    values = np.array([contrast(None) for contrast in contrasts], np.float64)
    num, effect = len(values), float(values.mean())
    deviation = float(values.std(ddof=1)) if num > 1 else math.nan
    half = math.inf
    if num > 1:
        half = float(stats.t.ppf((1 + LEVEL) / 2, num - 1)) * deviation / math.sqrt(num)
    shuffle = np.random.default_rng(seed)
    null = [float(np.mean([c(shuffle) for c in contrasts])) for _ in range(shuffles)]
    # Sums in another order differ in the last digits: what is equal counts as at least as large.
    at_least = sum(value >= effect - 1e-12 for value in null)
    return Claim(
        name=name,
        effect=effect,
        low=effect - half,
        high=effect + half,
        standardised=effect / deviation if deviation > 0 else math.nan,
        num_prompts=num,
        null=float(np.mean(null)) if null else math.nan,
        p_value=(1 + at_least) / (1 + shuffles),
    )

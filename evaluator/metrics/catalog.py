"""The built-in metrics by name: what a name means, and how its results are called.

"FID", "FID∞", "sFID", "MIFID", "KID" and "Inception score" mean Inception features only. On any
other extractor the same computation is called `fd_<extractor>`, `fd_infinity_<extractor>`,
`sfd_<extractor>`, `mifd_<extractor>`, `kd_<extractor>`, `is_<extractor>`. "CMMD" means the
extractor `clip`, whose weights the run records (published values take ViT-L/14 at 336 pixels).
Precision, recall, density and coverage are customary on several extractors, so they always carry
its name.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from evaluator.errors import ConfigError
from evaluator.metrics.families import (
    DEFAULT_EXTRACTORS,
    FAMILIES,
    INCEPTION,
    NAMES,
    ONE_QUANTITY,
    PROPER_NAMES,
    CatalogEntry,
)

if TYPE_CHECKING:
    from torchmetrics import Metric


@dataclass(frozen=True, slots=True)
class MetricPlan:
    """One metric of a configuration, checked and ready to build."""

    name: str
    """As the configuration spelled it: `fid`, `fd_dinov2`."""
    metric: str
    """The computation, a key of `FAMILIES`."""
    extractor: str
    """Whose features, logits or scores it takes."""
    input: str
    """`features`, `logits`, another output of the extractor, or a per-sample score's column."""
    reference: bool
    """Whether real samples are needed."""
    held_out: bool
    """Whether real samples that the model has not seen are needed too."""
    target: str
    """Dotted class, `module:attr`."""
    options: Mapping[str, Any]
    """Every option with its value, defaults included."""
    result_names: tuple[str, ...]
    """Names of the results, in the order that `compute()` returns them."""
    higher_is_better: tuple[bool | None, ...]
    """Direction of each result."""

    def build(self, dim: int | None = None) -> Metric:
        """The metric for inputs of width `dim`: (N, dim) features or logits; none for scores."""
        dimension = FAMILIES[self.metric].dimension
        sized = {} if dimension is None else {dimension: dim}
        module, _, attribute = self.target.partition(":")
        built: Metric = getattr(importlib.import_module(module), attribute)(
            **sized, names=self.result_names, **self.options
        )
        return built


def resolve(
    name: str, extractor: str | None = None, options: Mapping[str, Any] | None = None
) -> MetricPlan:
    """The plan for a metric of a configuration; ConfigError names what is unknown.

    ```
    resolve("fid")                                   # Fréchet distance on `inception`
    resolve("fd_dinov2")                             # on `dinov2`
    resolve("prdc", extractor="dinov2", options={"k": 3})
    ```
    """
    metric, named = _parse(name)
    if named is not None and extractor is not None and named != extractor:
        raise ConfigError(
            f"metric {name!r}: expected the extractor {named!r}, got {extractor!r}; "
            f"write {metric}_{extractor}"
        )
    chosen = extractor or named or DEFAULT_EXTRACTORS.get(metric)
    if chosen is None:
        raise ConfigError(
            f"metric {name!r}: expected an extractor, got none; write {metric}_<extractor>, "
            f"such as {metric}_dinov2"
        )
    entry = FAMILIES[metric]
    settings = _checked(name, entry, options or {})
    return MetricPlan(
        name=name,
        metric=metric,
        extractor=chosen,
        input=entry.input,
        reference=entry.reference,
        held_out=entry.held_out,
        target=entry.target,
        options=settings,
        result_names=_result_names(entry, chosen, settings),
        higher_is_better=entry.higher_is_better,
    )


class Quantity(NamedTuple):
    """Results that speak of one quantity."""

    names: tuple[str, ...]
    """Their names; of those that are there, the first is to be tested and counted."""
    one_metric: bool
    """Whether they are results of one metric, and so share its options."""


def quantity_of(name: str, extractor: str | None) -> Quantity:
    """The quantity that a result is of: `kid` → `kid_full`, `kid`; most are alone with theirs."""
    for results in ONE_QUANTITY if extractor is not None else ():
        names = tuple(
            _result_names(FAMILIES[metric], str(extractor), {})[place] for metric, place in results
        )
        if name in names:
            return Quantity(names, len({metric for metric, _ in results}) == 1)
    return Quantity((name,), one_metric=True)


def _parse(name: str) -> tuple[str, str | None]:
    """A spec string → (computation, extractor that the string names)."""
    if name in PROPER_NAMES:
        return PROPER_NAMES[name], INCEPTION
    if name in FAMILIES:
        return name, None
    # the longest first: `fd` must not swallow a longer family's name
    for metric in sorted(FAMILIES, key=len, reverse=True):
        if name.startswith(f"{metric}_") and len(name) > len(metric) + 1:
            return metric, name[len(metric) + 1 :]
    close = _near_miss(name)
    hint = f"did you mean {close!r}?" if close else "choose one of them"
    raise ConfigError(
        f"metric: expected one of {', '.join(NAMES)}, or a family with its extractor, such as "
        f"fd_<extractor>; got {name!r}; {hint}"
    )


def _near_miss(name: str) -> str | None:
    """What a misspelt name might have been: a name, or a family with the extractor given here."""
    if close := difflib.get_close_matches(name, NAMES, n=1, cutoff=0.8):
        return close[0]
    for proper in sorted(PROPER_NAMES, key=len, reverse=True):
        if name.startswith(f"{proper}_"):
            return PROPER_NAMES[proper] + name[len(proper) :]
    if close := difflib.get_close_matches(name, NAMES, n=1):
        return close[0]
    words = name.split("_")
    for cut in range(len(words) - 1, 0, -1):
        if close := difflib.get_close_matches("_".join(words[:cut]), FAMILIES, n=1):
            return "_".join([close[0], *words[cut:]])
    return None


def _checked(name: str, entry: CatalogEntry, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options with their values; every fault in one ConfigError."""
    settings = {key: option.default for key, option in entry.options.items()}
    faults = []
    for key, value in options.items():
        if key not in entry.options:
            close = difflib.get_close_matches(key, entry.options, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; remove it"
            faults.append(f"expected one of {', '.join(entry.options)}, got {key!r}{hint}")
            continue
        try:
            settings[key] = entry.options[key].check(key, value)
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError(f"metric {name!r}: its options are wrong", tuple(faults))
    return settings


def _result_names(
    entry: CatalogEntry, extractor: str, settings: Mapping[str, Any]
) -> tuple[str, ...]:
    """Names of the results; a variant other than the usual one is part of the name."""
    names = entry.proper_names
    if not names or extractor != entry.proper_extractor:
        names = tuple(template.format(extractor=extractor) for template in entry.result_names)
    variant = settings.get("variant", "mean")
    return names if variant == "mean" else tuple(f"{name}_{variant}" for name in names)

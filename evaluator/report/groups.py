"""Metrics by tag: one table a tag, a row for each value, a column for each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evaluator.report.results import Result


class GroupTable(NamedTuple):
    """The groups of one tag, or of one combination of tags."""

    tags: str
    metrics: list[Result]
    """One result of each column, for its name and direction."""
    rows: list[tuple[str, list[Result | None]]]
    """Value of the tags, and its result in each column."""
    warnings: list[tuple[str, list[str]]]
    """Each warning once, with the metrics and values that it is about."""


def group_tables(results: Sequence[Result]) -> list[GroupTable]:
    """Results of groups, by tag, in the order of metrics.json."""
    found: dict[str, dict[str, dict[str, Result]]] = {}
    for result in results:
        if result.group:
            tags = ", ".join(tag for tag, _ in result.group)
            value = ", ".join(value for _, value in result.group)
            found.setdefault(tags, {}).setdefault(value, {})[result.metric] = result
    tables = []
    for tags, rows in found.items():
        heads: dict[str, Result] = {}
        for row in rows.values():
            for metric, result in row.items():
                heads.setdefault(metric, result)
        lines = [(value, [row.get(metric) for metric in heads]) for value, row in rows.items()]
        tables.append(GroupTable(tags, list(heads.values()), lines, _warnings(rows)))
    return tables


def _warnings(rows: Mapping[str, Mapping[str, Result]]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for value, row in rows.items():
        for metric, result in row.items():
            for warning in result.warnings:
                found.setdefault(warning, []).append(f"{metric}: {value}")
    return list(found.items())

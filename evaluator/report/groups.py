"""Metrics by tag: one table a tag, a row for each value, a column for each metric."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
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


class _Column(NamedTuple):
    """What tells a number of a group from its others."""

    metric: str
    reference: str
    turn: int
    """0 for the first of this name and reference; a metric may be asked with several options."""


def group_tables(results: Sequence[Result]) -> list[GroupTable]:
    """Results of groups, by tag, in the order of metrics.json."""
    found: dict[str, dict[str, dict[_Column, Result]]] = {}
    for result in results:
        if result.group:
            tags = ", ".join(tag for tag, _ in result.group)
            value = ", ".join(value for _, value in result.group)
            row = found.setdefault(tags, {}).setdefault(value, {})
            column = _Column(result.metric, result.reference, 0)
            while column in row:
                column = column._replace(turn=column.turn + 1)
            row[column] = result
    tables = []
    for tags, rows in found.items():
        heads: dict[_Column, Result] = {}
        for row in rows.values():
            for column, result in row.items():
                if column not in heads or heads[column].higher_is_better is None:
                    heads[column] = result
        named = [replace(head, metric=_title(column, heads)) for column, head in heads.items()]
        lines = [(value, [row.get(column) for column in heads]) for value, row in rows.items()]
        tables.append(GroupTable(tags, named, lines, _warnings(rows)))
    return tables


def _title(column: _Column, columns: Collection[_Column]) -> str:
    """The metric, and what sets the column apart from others of its name."""
    alike = [each for each in columns if each.metric == column.metric]
    said = column.metric
    if len({each.reference for each in alike}) > 1:
        said += f" against {column.reference}" if column.reference else ""
    return said + (f" ({column.turn + 1})" if column.turn else "")


def _warnings(rows: Mapping[str, Mapping[_Column, Result]]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for value, row in rows.items():
        for column, result in row.items():
            for warning in result.warnings:
                found.setdefault(warning, []).append(f"{column.metric}: {value}")
    return list(found.items())

"""A leaderboard in a folder: the same numbers as JSON, CSV, Markdown, Parquet and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluator.durable import explained, write_atomically
from evaluator.leaderboard import Board
from evaluator.report.beside import require_ours
from evaluator.report.board import GENERATOR, RECORD, write_board
from evaluator.report.leaderboard_tables import as_csv, as_markdown, tidy_rows
from evaluator.text import without_secrets

NAME = "leaderboard"


def write_leaderboard(board: Board, folder: Path) -> list[Path]:
    """Write `leaderboard.{json,csv,md,parquet}` and `index.html`; returns their paths.

    Files of an older leaderboard are replaced. Raises RunDirectoryError for a folder that holds
    something else.
    """
    require_leaderboard_folder(folder)
    with explained("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "json": as_json(board).encode(),
        "csv": as_csv(board).encode(),
        "md": as_markdown(board).encode(),
        "parquet": _parquet(board),
    }
    paths = []
    for ending, content in contents.items():
        paths.append(folder / f"{NAME}.{ending}")
        write_atomically(paths[-1], content)
    return [*paths, write_board(board, folder)]


def require_leaderboard_folder(folder: Path) -> None:
    """Refuse a folder that is no leaderboard's, before anything is written into it."""
    with explained("look into", folder):
        require_ours(folder.resolve(), record=RECORD, generator=GENERATOR)


def as_json(board: Board) -> str:
    """What leaderboard.json holds: the board, without secrets in what others wrote."""
    record = _finite(without_secrets(board.record()))
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """None for numbers that JSON does not have, such as an option of somebody's configuration."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


def _parquet(board: Board) -> bytes:
    """One row a run and metric."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, real, whole, truth = pa.string(), pa.float64(), pa.int64(), pa.bool_()
    kinds = {
        "run": text, "measured": truth, "source": text, "protocol": text, "path": text,
        "metric": text, "column": text, "label": text, "higher_is_better": truth,
        "value": real, "low": real, "high": real, "level": real,
        "rank_low": whole, "rank_high": whole, "ranked_among": whole, "place": whole,
        "not_ranked_because": text, "n": whole, "n_expected": whole,
        "extractor": text, "fingerprint": text, "reference": text, "reference_content": text,
        "reference_n": whole, "options": text, "compared": text, "mean_win_rate": real,
        "kind": text, "model": text, "revision": text, "weights": text, "scheduler": text,
        "steps": whole, "guidance_scale": real, "height": whole, "width": whole, "dtype": text,
        "images_per_prompt": whole, "seed": whole, "prompts": text, "evaluator": text,
        "warnings": pa.list_(text),
    }  # fmt: skip
    table = pa.Table.from_pylist(tidy_rows(board), schema=pa.schema(list(kinds.items())))
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd")
    content: bytes = out.getvalue().to_pybytes()
    return content

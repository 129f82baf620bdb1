"""What a verb leaves behind: complete, readable, and with what it was made from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from evaluator.probing.inputs import ProbedImages, ProbedModel
from evaluator.probing.outputs import open_folder, plain, provenance
from evaluator.probing.pictures import (
    CURVE_COLOURS,
    LABEL_WIDTH,
    Curve,
    curve_chart,
    image_grid,
    number_map,
    round_ticks,
)
from evaluator.probing.progress import Progress


class Pair(NamedTuple):
    first: int
    second: float


@dataclass(frozen=True)
class Found:
    pair: Pair
    values: np.ndarray
    path: Path


def test_records_become_json_and_what_is_not_finite_becomes_null():
    found = Found(Pair(1, math.inf), np.array([[0.5, math.nan]]), Path("a/b"))
    expected = {"pair": {"first": 1, "second": None}, "values": [[0.5, None]], "path": "a/b"}
    assert plain(found) == expected
    assert plain({"x": np.float32(2.0), 3: (True, None)}) == {"x": 2.0, "3": [True, None]}


def test_the_result_comes_last_and_an_old_one_goes_first(
    tmp_path: Path, digits: ProbedModel, digit_images: ProbedImages
):
    folder = open_folder("verb", "model", tmp_path / "out")
    folder.table("rows.parquet", pa.table({"x": [1, 2]}))
    folder.picture("strip.png", Image.new("RGB", (4, 4)))
    made_from = provenance(digits, images=digit_images)
    folder.finish({"n": 2}, arguments={"limit": 2}, provenance=made_from)
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["verb"] == "verb"
    assert record["files"] == ["rows.parquet", "strip.png"]
    assert record["provenance"]["model"]["fingerprint"] == digits.model.fingerprint
    assert record["provenance"]["images"]["n"] == 12
    assert record["provenance"]["generation"]["seed"] == 0
    assert pq.read_table(tmp_path / "out" / "rows.parquet").column("x").to_pylist() == [1, 2]
    open_folder("verb", "model", tmp_path / "out")
    assert not (tmp_path / "out" / "result.json").exists()


def test_lines_and_captions_are_kept_for_the_report(tmp_path: Path):
    class Spoken:
        def lines(self) -> list[str]:
            return ["rank 3", "written: here"]

    folder = open_folder("verb", "model", tmp_path / "out")
    folder.picture("a.png", Image.new("RGB", (4, 4)), caption="What is seen.")
    folder.picture("b.png", Image.new("RGB", (4, 4)))
    record = json.loads(folder.finish(Spoken(), arguments={}, provenance={}).read_text())
    assert record["lines"] == ["rank 3", "written: here"]
    assert record["pictures"] == [
        {"file": "a.png", "caption": "What is seen."}, {"file": "b.png", "caption": ""},
    ]  # fmt: skip
    made = datetime.fromisoformat(record["made"])
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=5)
    told = folder.finish({"n": 2}, arguments={}, provenance={}, lines=["two"])
    assert json.loads(told.read_text())["lines"] == ["two"]
    assert json.loads(folder.finish({}, arguments={}, provenance={}).read_text())["lines"] == []


def test_a_grid_shows_every_pixel_where_it_belongs():
    red = torch.zeros(3, 8, 8, dtype=torch.uint8)
    red[0] = 255
    blue = torch.zeros(3, 8, 8, dtype=torch.uint8)
    blue[2] = 255
    grid = np.asarray(image_grid([[red, None], [blue, red]], row_labels=["a", "b" * 80]))
    assert (grid[:, :LABEL_WIDTH] == 255).any(), "labels have their margin"
    is_red = (grid == (255, 0, 0)).all(-1)
    is_blue = (grid == (0, 0, 255)).all(-1)
    assert is_red.sum() == 2 * 96 * 96
    assert is_blue.sum() == 96 * 96
    assert np.argwhere(is_blue)[:, 0].min() > 96, "the second row"


def test_a_map_is_white_in_the_middle_and_coloured_at_its_ends():
    values = np.array([[0.0, 1.0], [-1.0, 0.0]])
    picture = np.asarray(number_map(values, labels=["a", "b"]))
    cell = 48
    corner = lambda r, c: picture[4 + r * cell + 2, LABEL_WIDTH + c * cell + 2]  # noqa: E731
    assert corner(0, 0).tolist() == [255, 255, 255]
    assert corner(0, 1)[0] > corner(0, 1)[2]
    assert corner(1, 0)[2] > corner(1, 0)[0]
    scale = picture[4 + 2 * cell + 4 + 4]  # a line of pixels through it, under the map
    coloured = np.flatnonzero((scale.max(-1) - scale.min(-1)) > 20)
    assert scale[coloured[0]].tolist() == corner(1, 0).tolist(), "the lowest on the left"
    assert scale[coloured[-1]].tolist() == corner(0, 1).tolist()
    assert coloured[0] > LABEL_WIDTH, "beside the number that it stands for"


def test_a_chart_places_points_by_the_logarithm_of_their_height():
    nothing = [math.nan] * 3
    line = Curve([0.0, 1.0, 2.0], [1.0, 0.1, 0.01], nothing, nothing, "")
    chart = np.asarray(curve_chart([line], title="", x_label=""))
    blue = np.argwhere((chart == CURVE_COLOURS[0]).all(-1))
    by_column = {int(c): blue[blue[:, 1] == c][:, 0].mean() for c in sorted(set(blue[:, 1]))}
    columns = sorted(by_column)
    first, middle, last = (columns[3], columns[len(columns) // 2], columns[-4])
    assert by_column[middle] == pytest.approx((by_column[first] + by_column[last]) / 2, abs=2)
    empty = Curve([math.nan], [math.nan], [math.nan], [math.nan], "")
    assert curve_chart([empty], title="", x_label="").size == (640, 360)


def test_a_legend_is_not_crossed_by_a_curve():
    nothing = [math.nan] * 2
    falling = Curve([0.0, 1.0], [5.0, 1.0], nothing, nothing, "a long enough name")
    flat = Curve([0.0, 1.0], [9.3, 9.3], nothing, nothing, "")
    chart = np.asarray(curve_chart([falling, flat], title="", x_label=""))
    columns = np.argwhere((chart[28:40] == CURVE_COLOURS[1]).all(-1))[:, 1]
    assert (columns < 470).sum() > 300, "it runs at the height of the name"
    assert not ((columns > 476) & (columns < 560)).any()


def test_progress_speaks_in_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch):
    import io

    monkeypatch.setattr("evaluator.probing.progress.LINE_SECONDS", 0.0)
    stream = io.StringIO()
    progress = Progress("probing", 4, stream=stream)
    progress.advance()
    progress.advance(3)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("probing: 1/4, ")
    assert lines[1] == "probing: 4/4"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 256, [50, 100, 150, 200, 250]),
        (1, 64, [20, 40, 60]),
        (1, 6, [1, 2, 3, 4, 5, 6]),
        (-8.22, 9.21, [-5, 0, 5]),
        (0, 0.3, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (3, 3 + 1e-9, [3]),
    ],
)
def test_ticks_are_round_and_within_the_chart(low: float, high: float, ticks: list[float]) -> None:
    assert round_ticks(low, high) == ticks


def test_the_last_tick_is_not_clipped() -> None:
    nothing = [math.nan, math.nan]
    line = Curve([0.0, 100000.0], [1.0, 2.0], nothing, nothing, "")
    chart = np.asarray(curve_chart([line], title="", x_label=""))
    assert (chart[:, -1] == 255).all(), "nothing reaches the edge"
    assert (chart[324:340, 600:] < 128).any(), "the tick is there"

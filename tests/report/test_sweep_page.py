"""The page about a sweep: what is drawn, what is said, what lies beside it, and no foreign markup."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow.parquet as pq
import pytest

from evaluator.cli import main
from evaluator.errors import ConfigError, RunDirectoryError
from evaluator.report.sweep import sweep_table, write_sweep
from evaluator.report.sweep_layout import lay_out, weighed
from evaluator.report.sweep_points import read_sweep, shown
from tests.leaderboard.synthetic import SetNumber, make_run
from tests.report.sweeps import GUIDANCE, Numbers, make_sweep, traded

SVG = "{http://www.w3.org/2000/svg}"
BAD = "=1+1</script><script>alert(1)</script>\x1b[31m"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_sweep(tmp_path / "runs", GUIDANCE, traded)


def drawn(page: Path, name: str) -> ET.Element:
    return ET.fromstring((page.parent / name).read_text())


def dots(svg: ET.Element) -> list[str]:
    circles = (c for c in svg.iter(f"{SVG}circle") if c.get("class", "").startswith("dot"))
    return [title.text or "" for c in circles for title in c.iter(f"{SVG}title")]


def test_figures_tables_and_page_lie_together(folder: Path) -> None:
    page = write_sweep(folder)
    assert page == folder / "report" / "index.html"
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == [
        "groups-1.svg", "index.html", "metric-1.svg", "metric-2.svg", "metric-3.svg", "sweep.csv",
        "sweep.parquet", "trade-off-1.svg", "trade-off-2.svg", "trade-off-3.svg",
    ]  # fmt: skip
    text = page.read_text()
    assert all(f'href="{name}"' in text for name in names if name != "index.html")
    assert write_sweep(folder) == page  # an older one is replaced


def test_every_point_is_in_the_trade_off_once_and_the_front_is_ringed(folder: Path) -> None:
    svg = drawn(write_sweep(folder), "trade-off-2.svg")
    assert [title.partition(":")[0] for title in dots(svg)] == [
        f"guidance_scale {scale}" for scale in (1, 2, 3, 4)
    ]
    assert "fd_digits 10.000 ± 0.400, clip_score 20.000 ± 0.100" in dots(svg)[0]
    rings = [c for c in svg.iter(f"{SVG}circle") if c.get("class") == "hollow"]
    assert len(rings) == 1 + 3  # the legend's, and all but the last: as good, but farther
    whiskers = [line for line in svg.iter(f"{SVG}line") if "whisker" in line.get("class", "")]
    assert len(whiskers) == 2 * 4
    (line,) = svg.iter(f"{SVG}polyline")
    xs = [float(pair.partition(",")[0]) for pair in line.get("points", "").split()]
    assert xs == sorted(xs)
    said = "".join(svg.itertext())
    assert "← better, fd_digits" in said
    assert "clip_score, better ↑" in said


def test_the_tables_hold_what_the_page_shows(folder: Path) -> None:
    page = write_sweep(folder)
    rows = pq.read_table(page.parent / "sweep.parquet").to_pylist()
    assert len(rows) == 4 * 6
    first = rows[0]
    assert (first["folder"], first["generation.guidance_scale"], first["metric"]) == (
        "point-0", 1.0, "fd_digits",
    )  # fmt: skip
    assert (first["value"], first["low"], first["high"]) == (10.0, 9.6, 10.4)
    whole = [row for row in rows if row["metric"] == "fd_digits"]
    assert [row["place"] for row in whole] == [1, 2, 3, 4]
    assert all(row["rank_low"] <= row["place"] <= row["rank_high"] for row in whole)
    assert [row["on_front"] for row in whole] == [True, True, True, False]
    groups = [row for row in rows if row["tag"]]
    assert {row["group"] for row in groups} == {"red", "green", "blue"}
    with (page.parent / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["value"]) for line in lines] == [row["value"] for row in rows]


def test_groups_have_a_radar_on_one_scale_and_a_table(folder: Path) -> None:
    page = write_sweep(folder)
    svg = drawn(page, "groups-1.svg")
    shapes = [p for p in svg.iter(f"{SVG}polygon") if p.get("class", "").startswith("line")]
    assert len(shapes) == 4
    assert all(len(shape.get("points", "").split()) == 3 for shape in shapes)
    said = "".join(svg.itertext())
    assert "the centre is the worst number shown, 20.000, the rim the best, 25.000" in said
    assert "not areas" in said
    assert '<th scope="col" class="num">blue</th>' in page.read_text()


def test_a_radar_of_numbers_without_a_direction_calls_none_of_them_best(tmp_path: Path) -> None:
    def numbers(i: int) -> Numbers:
        groups = [
            SetNumber("brightness", 3.0 + i + j, higher_is_better=None, group={"colour": tag})
            for j, tag in enumerate(("red", "green", "blue"))
        ]
        return [*traded(i), SetNumber("brightness", 4.0, higher_is_better=None), *groups]

    page = write_sweep(make_sweep(tmp_path / "runs", GUIDANCE, numbers))
    svgs = [drawn(page, path.name) for path in page.parent.glob("groups-*.svg")]
    said = [svg.findtext(f"{SVG}desc") or "" for svg in svgs]
    plain = next(text for text in said if text.startswith("brightness"))
    assert "the centre is the lowest number shown, 3.0000, the rim the highest, 8.0000" in plain
    assert "neither direction is better" in plain
    assert "worst" not in plain
    assert "best" not in plain


def test_two_settings_give_a_line_for_each_value_of_the_other(tmp_path: Path) -> None:
    values = [
        {"generation.steps": steps, "generation.guidance_scale": scale}
        for steps in (20, 10)
        for scale in (5, 1, 3)
    ]
    sweep = read_sweep(make_sweep(tmp_path / "runs", values, traded))
    layout = lay_out(sweep)
    assert layout.main == "generation.guidance_scale"
    assert [(line.name, list(line.points)) for line in layout.lines] == [
        ("steps 20", [1, 2, 0]), ("steps 10", [4, 5, 3]),
    ]  # fmt: skip
    assert layout.joined


def test_settings_that_change_together_are_one_line(tmp_path: Path) -> None:
    values = [{"generation.steps": n, "generation.seed": 10 * n} for n in (1, 2, 3)]
    (line,) = lay_out(read_sweep(make_sweep(tmp_path / "runs", values, traded))).lines
    assert line.points == [0, 1, 2]


def test_data_sets_are_lines_of_a_numeric_setting_or_places_without_one(tmp_path: Path) -> None:
    sets = ["coco.jsonl", "drawn.jsonl"]
    both = [
        {"prompts.source": source, "generation.guidance_scale": scale}
        for source in sets
        for scale in (1, 3)
    ]
    layout = lay_out(read_sweep(make_sweep(tmp_path / "both", both, traded)))
    assert [line.name for line in layout.lines] == [f"prompts.source {name}" for name in sets]
    alone = make_sweep(tmp_path / "alone", [{"prompts.source": name} for name in sets], traded)
    layout = lay_out(read_sweep(alone))
    assert (layout.numeric, layout.joined) == (False, False)
    svg = drawn(write_sweep(alone), "metric-1.svg")
    assert not list(svg.iter(f"{SVG}polyline"))
    assert {"coco.jsonl", "drawn.jsonl"} <= {label.text for label in svg.iter(f"{SVG}text")}


def test_a_part_with_a_name_goes_by_it() -> None:
    assert shown({"name": "DDIMScheduler"}) == "DDIMScheduler"
    assert shown({"name": "DDIMScheduler", "eta": 0.5, "x": None}) == (
        "DDIMScheduler (eta 0.5, x null)"
    )
    assert [shown(value) for value in (3, 3.0, 0.1, True, "a\x1b[31mb", [1, 2])] == [
        "3", "3", "0.1", "true", "ab", "[1, 2]",
    ]  # fmt: skip


def test_more_lines_than_colours_are_points_without_lines(tmp_path: Path) -> None:
    values = [{"generation.seed": s, "generation.steps": n} for s in range(7) for n in range(1, 9)]
    layout = lay_out(read_sweep(make_sweep(tmp_path / "runs", values, lambda i: None)))
    assert (len(layout.lines), layout.joined, len(layout.lines[0].points)) == (1, False, 56)


def test_the_metrics_weighed_are_those_that_tell_points_apart(folder: Path) -> None:
    sweep = read_sweep(folder)
    assert [m.name for m in weighed(sweep)] == ["fd_digits", "recall_digits", "clip_score"]
    assert [m.name for m in weighed(sweep, ["clip_score", "fd_digits"])] == [
        "clip_score", "fd_digits",
    ]  # fmt: skip
    for asked in (["fid", "clip_score"], ["fd_digits"]):
        with pytest.raises(ConfigError, match="expected two or three of fd_digits, recall_digits"):
            weighed(sweep, asked)


def test_what_is_missing_is_said_and_the_rest_is_shown(tmp_path: Path) -> None:
    def some(i: int) -> Numbers | None:
        numbers = [*traded(i)]
        if i == 1:
            numbers[0] = SetNumber("fd_digits", None)
        return None if i == 3 else numbers

    folder = make_sweep(tmp_path / "runs", GUIDANCE, some)
    text = write_sweep(folder).read_text()
    assert "2 of 4 points have all their numbers." in text
    assert "guidance_scale 2: no number for fd_digits." in text
    assert "guidance_scale 4: not begun yet." in text
    assert "lacks a number" in text
    table = sweep_table(folder)
    assert "! not begun yet." in table
    assert "10.000 ± 0.400" in table


def test_a_number_that_failed_at_the_first_point_leaves_its_metric_on_the_front(
    tmp_path: Path,
) -> None:
    """metrics.json says no direction of a number that could not be computed."""

    def some(i: int) -> Numbers:
        failed = SetNumber("fd_digits", None, higher_is_better=None)
        return [failed, *traded(i)[1:]] if i == 0 else traded(i)

    sweep = read_sweep(make_sweep(tmp_path / "runs", GUIDANCE, some))
    first = sweep.metrics[[m.name for m in sweep.metrics].index("fd_digits")]
    assert sweep.higher_is_better(first) is False
    assert "fd_digits" in [m.name for m in weighed(sweep)]


def test_a_metric_that_was_asked_twice_is_not_left_out_in_silence(tmp_path: Path) -> None:
    twice = [SetNumber("kd_digits", value, reach=0.1) for value in (1.0, 2.0)]
    sweep = read_sweep(make_sweep(tmp_path / "runs", GUIDANCE[:2], lambda i: twice))
    assert sweep.values(sweep.metrics[0]) == [1.0, 1.0]
    said = "guidance_scale 1: kd_digits stands in its numbers again; the first counts."
    assert said in sweep.remarks


def test_a_sweep_without_any_number_has_a_page(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "runs", GUIDANCE, lambda i: None)
    assert "0 of 4 points have all their numbers." in write_sweep(folder).read_text()


def test_points_that_cannot_be_compared_are_said_to_be_so(tmp_path: Path) -> None:
    folder = make_sweep(
        tmp_path / "runs", GUIDANCE[:2],
        lambda i: [SetNumber("fid", 5.0 + i, n=100 * (i + 1), fingerprint=str(i) * 64)],
    )  # fmt: skip
    text = write_sweep(folder).read_text()
    assert "fid: from 100 to 200 samples; what depends on the number of samples cannot" in text
    assert "fid: the extractors differ between points" in text


def test_points_of_other_prompts_are_not_weighed_against_each_other(tmp_path: Path) -> None:
    sources = ["a.txt", "a.txt", "b.txt", "b.txt", "c.txt"]
    scales = [1, 3, 1, 3, 1]
    values = [
        {"prompts.source": source, "generation.guidance_scale": scale}
        for source, scale in zip(sources, scales, strict=True)
    ]
    folder = make_sweep(tmp_path / "runs", values, lambda i: None)
    for i, source in enumerate(sources):  # every point beats those before it, a gap between
        make_run(
            folder / f"point-{i}",
            [
                SetNumber("fd_digits", 20.0 - 3 * i),
                SetNumber("clip_score", 20.0 + 3 * i, higher_is_better=True),
            ],
            num_prompts=30,
            prompts=source[0] * 64,
        )
    page = write_sweep(folder)
    text = page.read_text()
    standings = re.findall(r'<td class="standing[^"]*">([^<]*)</td>', text)
    assert standings == [
        "beaten beyond noise", "on the front", "beaten beyond noise", "on the front",
        "cannot be compared with another",
    ]  # fmt: skip
    assert "each kind has a front of its own" in text
    rows = pq.read_table(page.parent / "sweep.parquet").to_pylist()
    assert [r["on_front"] for r in rows if r["metric"] == "fd_digits"] == [
        False, True, False, True, False,
    ]  # fmt: skip
    svg = drawn(page, "trade-off-1.svg")
    rings = [c for c in svg.iter(f"{SVG}circle") if c.get("class") == "hollow"]
    assert len(rings) == 1 + 2  # the legend's, and the best of the two kinds of two
    assert "cannot be compared are not weighed" in "".join(svg.itertext())


def test_what_others_wrote_stays_text(tmp_path: Path) -> None:
    def hostile(i: int) -> Numbers:
        return [
            SetNumber(f"fid{BAD}", 3.0 + i),
            SetNumber("clip_score", 2.0 + i, higher_is_better=True),
            *(
                SetNumber("clip_score", 2.0, higher_is_better=True, group={BAD: f"{BAD}{j}"})
                for j in range(3)
            ),
        ]

    values = [{"model.id": f"{BAD}{i}", f"model.arguments.{BAD}": i} for i in range(3)]
    folder = make_sweep(tmp_path / "runs", values, hostile, name=BAD)
    page = write_sweep(folder)
    for path in page.parent.iterdir():
        text = path.read_bytes().decode(errors="replace")
        assert path.suffix == ".parquet" or "\x1b" not in text.replace("\\u001b", ""), path
        assert "<script>alert" not in text or path.suffix in (".csv", ".parquet")
    with (page.parent / "sweep.csv").open() as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "@")]
    assert "\x1b" not in sweep_table(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "expected the folder of a sweep"),
        ("[]", "expected the points of a sweep"),
        ("{", "expected the points of a sweep"),
        (
            json.dumps({"name": "x", "points": [{"folder": "../..", "name": "a", "values": {}}]}),
            "expected folders inside the sweep's",
        ),
    ],
)
def test_what_is_no_sweep_is_refused(content: str | None, says: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=says):
        write_sweep(tmp_path)


def test_a_run_that_is_no_point_any_longer_is_named(folder: Path) -> None:
    record = json.loads((folder / "sweep.json").read_text())
    record["points"] = record["points"][:-1]
    (folder / "sweep.json").write_text(json.dumps(record))
    told = "left out, as sweep.json does not name it (any longer): point-3"
    assert told in sweep_table(folder)
    assert told in write_sweep(folder).read_text()


def test_a_folder_with_other_things_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "mine"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(RunDirectoryError, match="expected a new folder"):
        write_sweep(folder, other)


def test_the_verb_takes_the_folder_or_the_configuration(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({
        "name": "runs", "output": str(tmp_path), "model": {"kind": "images"},
        "prompts": {"source": "x"}, "sweep": {"grid": {"prompts.limit": [1, 2]}},
    }))  # fmt: skip
    for given, status in ((folder, 0), (config, 0), (tmp_path / "none", 2)):
        with pytest.raises(SystemExit) as left:
            main(["sweep", str(given), "--metrics", "fd_digits, clip_score"])
        assert (left.value.code or 0) == status
    captured = capsys.readouterr()
    assert captured.out.split() == [str(folder / "report" / "index.html")] * 2
    assert "expected the folder of a sweep" in captured.err
    assert (folder / "report" / "trade-off-1.svg").is_file()
    assert not (folder / "report" / "trade-off-2.svg").exists()


def test_what_a_number_says_of_its_limits_is_said_once_on_the_page_and_in_the_terminal(
    folder: Path,
) -> None:
    for i in range(4):
        file = folder / f"point-{i}" / "metrics.json"
        record = json.loads(file.read_text())
        for metric in record["metrics"]:
            whole, name = not metric.get("group"), metric["name"]
            few = whole and name in ("fd_digits", "recall_digits")
            metric["warnings"] = ["30 samples: few <b>"] if few else []
            if whole and name == "clip_score" and i == 2:
                metric["warnings"] = ["flat"]
        file.write_text(json.dumps(record))
    page = write_sweep(folder).read_text()
    assert page.count("⚠ fd_digits, recall_digits: 30 samples: few &lt;b&gt;") == 1
    assert page.count("⚠ clip_score: flat (at 1 of 4 points)") == 1
    assert sweep_table(folder).splitlines()[-2:] == [
        "! fd_digits, recall_digits: 30 samples: few <b>",
        "! clip_score: flat (at 1 of 4 points)",
    ]

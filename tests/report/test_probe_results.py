"""What verbs left under `probes/` is shown; what is damaged or hostile there does no harm."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import stats

from evaluator.probing.outputs import open_folder
from evaluator.report import probe_folders, write_report
from evaluator.report.probe_charts import DRAWN, component_bars, components, probe_charts
from evaluator.report.probe_folders import ProbeResult, read_probes
from evaluator.store.rundir import RunDirectory
from tests.report.test_page import outline

Make = Callable[..., RunDirectory]
HOSTILE = '<img src=x onerror=alert(1)>\x1b[31m "red" \u202e'


class Found:
    """A verb's result: what its command line prints."""

    def __init__(self, *lines: str) -> None:
        self._lines = lines

    def lines(self) -> list[str]:
        return [*self._lines, "written: /home/somebody/secret"]


def png(colour: str = "red", side: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(out, "PNG")
    return out.getvalue()


def leave(run: RunDirectory, verb: str, *lines: str, **model: Any) -> Path:
    """A complete folder, as a verb writes it."""
    folder = open_folder(verb, "m", run.path / "probes" / verb)
    folder.picture("strip.png", Image.new("RGB", (8, 8), "red"), caption=f"Strip of {verb}.")
    given = {"fingerprint": "f" * 64, "id": "some/model", **model}
    folder.finish(Found(*lines), arguments={}, provenance={"model": given})
    return folder.path


def result(verb: str, table: pa.Table | None = None, **found: Any) -> ProbeResult:
    return ProbeResult(place=verb, verb=verb, made="", model="", lines=(), warning="", note="",
                       pictures=(), result=found, arguments={}, table=table)  # fmt: skip


# -- the folders ----------------------------------------------------------------------------------


def test_a_verbs_lines_and_pictures_are_on_the_page(make_run: Make) -> None:
    run = make_run(num_samples=3, probes=False)
    leave(run, "custom", "step   rank", "   0     12", f"prompt {HOSTILE}")
    folder = write_report(run).parent
    html, page = (folder / "index.html").read_text(encoding="utf-8"), outline(folder)
    assert "step   rank\n   0     12" in page.visible, "columns stay in line"
    assert "Strip of custom." in page.visible
    assert "some/model ffffffff" in page.visible
    assert 'prompt <img src=x onerror=alert(1)> "red"' in page.visible
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert not [image for image in page.named("img") if "onerror" in image]
    assert "somebody" not in html, "where it was written is nobody's business"
    with Image.open(folder / "probes/00/00.png") as picture:
        assert picture.getpixel((3, 3)) == (255, 0, 0)


def test_no_probes_is_said_and_so_is_how_to_have_them(make_run: Make) -> None:
    page = write_report(make_run(num_samples=3, probes=False)).read_text(encoding="utf-8")
    assert "No results under probes/" in page
    assert "evaluator probe VERB RUN" in page


def test_unfinished_and_damaged_folders_are_a_line_each(make_run: Make) -> None:
    run = make_run(num_samples=3, probes=False)
    leave(run, "good", "all well")
    for name, content in {
        "atwork": None,
        "damaged": b"{",
        "deep": b"[" * 100_000,
        "list": b"[]",
        "newer": b'{"verb": "denoise", "format": 99}',
        "nameless": b'{"format": 2}',
    }.items():
        (run.path / "probes" / name).mkdir()
        if content is not None:
            (run.path / "probes" / name / "result.json").write_bytes(content)
    page = outline(write_report(run).parent).visible
    for said in (
        "probes/atwork: no result.json: the verb is at work, or was interrupted",
        "probes/damaged: result.json is damaged",
        "probes/deep: result.json is damaged",
        "probes/list: result.json names no verb",
        "probes/newer: result.json has format 99, expected 1 to 2",
        "probes/nameless: result.json names no verb",
        "all well",
    ):
        assert said in page, said


def test_names_in_result_json_choose_no_file(make_run: Make, tmp_path: Path) -> None:
    run = make_run(num_samples=3, probes=False)
    secret = tmp_path / "secret.png"
    secret.write_bytes(png("lime"))
    place = leave(run, "custom")
    record = json.loads((place / "result.json").read_text())
    record["verb"] = "../../../escape"
    record["files"] = record["pictures"] = [
        {"file": str(secret), "caption": "stolen"},
        {"file": "../../../secret.png", "caption": "stolen"},
        "not a record",
    ]
    (place / "result.json").write_text(json.dumps(record))
    os.symlink(secret, place / "linked.png")
    os.symlink(tmp_path, run.path / "probes" / "linked")
    folder = write_report(run).parent
    copies = sorted(folder.glob("probes/**/*.png"))
    assert [path.name for path in copies] == ["00.png"]
    with Image.open(copies[0]) as picture:
        assert picture.getpixel((0, 0)) == (255, 0, 0)
    page = outline(folder).visible
    assert "stolen" not in page
    assert "linked" not in page


def test_a_linked_result_is_not_read(make_run: Make, tmp_path: Path) -> None:
    run = make_run(num_samples=3, probes=False)
    place = leave(run, "custom", "line of the link")
    os.replace(place / "result.json", tmp_path / "elsewhere.json")
    os.symlink(tmp_path / "elsewhere.json", place / "result.json")
    page = outline(write_report(run).parent).visible
    assert "probes/custom: expected the file result.json, got none" in page
    assert "line of the link" not in page


def test_linked_probes_are_not_read(make_run: Make, tmp_path: Path) -> None:
    run = make_run(num_samples=3, probes=False)
    leave(run, "custom", "line of the link")
    os.replace(run.path / "probes", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", run.path / "probes")
    page = outline(write_report(run).parent).visible
    assert "probes is a link: what it leads to is not read" in page
    assert "line of the link" not in page


def test_pictures_that_are_none_or_too_many_are_counted(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_folders, "MAX_PICTURES", 3)
    monkeypatch.setattr(probe_folders, "MAX_PICTURE_BYTES", 4000)
    run = make_run(num_samples=3, probes=False)
    place = leave(run, "custom")
    (place / "a.png").write_bytes(b"GIF89a not a picture")
    (place / "b.png").write_bytes(b"\0" * 5000)
    (place / "t.png").write_bytes(png())
    page = outline(write_report(run).parent).visible
    assert "probes/custom: a.png is no picture that can be shown" in page
    assert "b.png has 5,000 bytes, more than is read (4,000)" in page
    assert "probes/custom: 1 further pictures are not shown" in page
    assert "Strip of custom." in page


def test_other_weights_are_a_warning_and_other_settings_a_note(make_run: Make) -> None:
    run = make_run(num_samples=3, probes=False)
    of_run = {"fingerprint": "a" * 64, "weights_sha256": "1" * 64, "added_weights_sha256": {}}
    for name, model in {
        "other": {"weights_sha256": "2" * 64, "added_weights_sha256": {}},
        "same": {"weights_sha256": "1" * 64, "added_weights_sha256": {}},
        "lora": {"weights_sha256": "1" * 64, "added_weights_sha256": {"lora": "3"}},
        "equal": of_run,
        "silent": {"fingerprint": None},
    }.items():
        leave(run, name, **model)
    found = read_probes(run.path, {"model": of_run}, run.path / "out", drawn=())
    warned = {item.place: (bool(item.warning), bool(item.note)) for item in found.complete}
    assert warned == {"other": (True, False), "same": (False, True), "lora": (True, False),
                      "equal": (False, False), "silent": (False, False)}  # fmt: skip
    provenance = json.dumps({"model": of_run})
    (run.path / "init" / "provenance.json").write_text(provenance)
    assert "Made with other weights than this run’s images" in write_report(run).read_text()


def test_a_note_on_other_settings_names_them(make_run: Make) -> None:
    run = make_run(num_samples=3, probes=False)
    weights = {"weights_sha256": "1" * 64, "added_weights_sha256": {}}
    generation = {"steps": 50, "guidance_scale": None, "seed": 0}
    of_run = {"fingerprint": "a" * 64, "dtype": "float16", "device": "cpu", **weights}
    folder = open_folder("custom", "m", run.path / "probes" / "custom")
    probed = {"fingerprint": "b" * 64, "dtype": HOSTILE, "device": "cpu", **weights}
    asked = {"steps": 10, "guidance_scale": 1.0, "seed": 0}
    folder.finish(Found(), arguments={}, provenance={"model": probed, "generation": asked})
    made_from = {"model": of_run, "generation": generation}
    (found,) = read_probes(run.path, made_from, run.path / "out", drawn=()).complete
    said, _, named = found.note.partition(": ")
    assert said == "the weights of this run, under other settings than its images"
    assert named.startswith("dtype <img src=x")
    assert "\x1b" not in named
    assert named.endswith(
        " instead of float16; guidance_scale 1.0 instead of none; steps 10 instead of 50"
    )


def test_a_damaged_table_costs_its_chart_only(make_run: Make) -> None:
    run = make_run(num_samples=3, probes=False)
    for verb in ("denoise", "roundtrip"):
        leave(run, verb, f"lines of {verb}")
    (run.path / "probes/denoise/denoise.parquet").write_bytes(b"PAR1 no table")
    pq.write_table(pa.table({"other": [1]}), run.path / "probes/roundtrip/roundtrip.parquet")
    page = outline(write_report(run).parent).visible
    assert "probes/denoise: denoise.parquet is damaged: its chart is left out" in page
    assert "lines of denoise" in page
    assert "lines of roundtrip" in page


# -- the charts -----------------------------------------------------------------------------------


def test_the_denoising_error_is_the_mean_with_its_t_interval() -> None:
    draw = np.random.default_rng(0)
    level = np.repeat([-2.0, 0.0, 3.0], 9)
    noise, x0 = draw.lognormal(size=27), draw.lognormal(size=27)
    table = pa.table({"log_snr": level, "noise_mse": noise, "x0_mse": x0})
    (chart,) = probe_charts(result("denoise", table), "p")
    for series, values in zip(chart.series, (noise, x0), strict=True):
        assert series.x == [-2.0, 0.0, 3.0]
        for i, at in enumerate(series.x):
            here = values[level == at]
            high = stats.ttest_1samp(here, 0).confidence_interval(0.95).high
            assert series.y[i] == pytest.approx(math.log10(here.mean()))
            assert series.high[i] == pytest.approx(math.log10(high), abs=1e-3)
            assert series.low[i] < series.y[i]


def test_ranks_beyond_what_was_computed_are_said_to_be() -> None:
    table = pa.table({
        "log_snr": [-1.0, -1.0, -1.0, 2.0, 2.0, 2.0], "rank": [3, 5, 8, None, 4, None],
        "singular_values": [[1.0] * 10] * 6,
    })  # fmt: skip
    (chart,) = probe_charts(result("jacobian", table), "p")
    (line,) = chart.series
    assert (list(line.y), list(line.low), list(line.high)) == ([5, 10], [3, 4], [8, 10])
    assert "2 of 6 ranks are higher than the 10 singular values" in chart.description


def test_a_path_is_drawn_for_each_feature_space_and_never_below_zero() -> None:
    table = pa.table({
        "pair": [0, 1] * 4, "mode": ["slerp", "slerp", "lerp", "lerp"] * 2,
        "weight": [0.5] * 4 + [1.0] * 4, "distance_pixels": [0.1, 3.0, 1, 1, 2, 2, 2, 2],
        "distance_clip": [0.5] * 8, "jump_pixels": [False] * 8,
    })  # fmt: skip
    pixels, clip = probe_charts(result("interpolate", table), "p")
    assert [line.name for line in pixels.series] == ["slerp", "lerp"]
    assert pixels.series[0].y == pytest.approx([1.55, 2.0])
    assert pixels.series[0].low[0] == 0.0
    assert "clip" in clip.title


def test_a_shuffled_direction_is_a_line_of_its_own() -> None:
    table = pa.table({"strength": [0.0, 1.0, 1.0] * 2, "shuffled": [False, False, True] * 2,
                      "score": [0.0, 0.4, 0.1, 0.2, 0.6, 0.1]})  # fmt: skip
    (chart,) = probe_charts(result("directions", table), "p")
    named = {line.name: (list(line.x), list(line.y)) for line in chart.series}
    assert named["the direction"] == ([0.0, 1.0], pytest.approx([0.1, 0.5]))
    assert named["its entries shuffled"] == ([1.0], pytest.approx([0.1]))


def test_every_pair_of_prompts_has_a_chart_of_its_own() -> None:
    table = pa.table({
        "pair": [0, 0, 1, 1], "from": ["red"] * 2 + ["small"] * 2, "to": ["blue"] * 2 + ["big"] * 2,
        "strength": [0.0, 1.0] * 2, "shuffled": [False] * 4, "score": [0.0, 1.0, 5.0, 6.0],
    })  # fmt: skip
    first, second = probe_charts(result("directions", table), "p")
    assert "from “red” to “blue”" in first.description
    assert "from “small” to “big”" in second.description
    assert list(second.series[0].y) == [5.0, 6.0]
    assert first.slug != second.slug


def test_scores_and_errors_are_drawn_as_shares_of_images() -> None:
    table = pa.table({"set": ["held-out"] * 4 + ["images"] * 2, "euclidean": [4.0, 1, 2, 3, 9, 8],
                      "euclidean_p": [None] * 4 + [0.2, 0.2]})  # fmt: skip
    (chart,) = probe_charts(result("ood", table), "p")
    assert [list(line.x) for line in chart.series] == [[1, 2, 3, 4], [8, 9]]
    assert [list(line.y) for line in chart.series] == [[0.25, 0.5, 0.75, 1], [0.5, 1]]
    psnr = np.random.default_rng(1).normal(40, 2, 1000)
    (chart,) = probe_charts(result("roundtrip", pa.table({"psnr": psnr})), "p")
    (line,) = chart.series
    for x, share in zip(line.x, line.y, strict=True):
        assert share == pytest.approx((psnr <= x).mean())
    assert len(line.x) <= 200


def test_tables_of_another_shape_draw_nothing() -> None:
    for verb in DRAWN:
        assert probe_charts(result(verb, pa.table({"x": [1.0]})), "p") == []
        text = {name: ["a"] for name in ("log_snr", "weight", "strength", "set", "psnr", "rank")}
        assert probe_charts(result(verb, pa.table(text)), "p") == []


def test_anatomys_bars_are_as_long_as_components_have_parameters() -> None:
    parts = [
        {"name": "vae", "num_parameters": 1_000},
        {"name": "unet", "num_parameters": 3_000},
        {"name": "tokenizer", "num_parameters": None},
        "not a part",
    ]
    svg = component_bars(result("anatomy", components=parts), "p")
    assert svg is not None
    first, second = (float(bar.get("width", "0")) for bar in svg.iter("rect"))
    assert first == pytest.approx(3 * second, abs=0.2)
    said = " ".join("".join(text.itertext()) for text in svg.iter("text"))
    assert said.index("3 k (75 %)") < said.index("1 k (25 %)"), "the longest first"
    assert "tokenizer" not in said
    assert component_bars(result("anatomy", components=parts[2:]), "p") is None
    assert component_bars(result("denoise", components=parts), "p") is None


def test_anatomy_is_a_table() -> None:
    parts = [
        {"name": "unet", "kind": "UNet2D", "num_parameters": 3_000_000, "dtypes": ["float16"]},
        {"name": "tokenizer", "kind": "CLIPTokenizer", "num_parameters": None, "dtypes": []},
        "not a part",
    ]
    facts = components(result("anatomy", components=parts, pipeline="Pipe"))
    assert facts is not None
    assert facts.rows == [
        ["unet", "UNet2D", "3,000,000", "float16"], ["tokenizer", "CLIPTokenizer", "—", "—"],
    ]  # fmt: skip
    assert components(result("denoise", components=parts)) is None
    assert components(result("anatomy")) is None

"""The gallery lists every sample, shows as many pictures as were asked for, and stays text."""

from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from evaluator.cli import app
from evaluator.report import images, single, survey, write_report
from evaluator.report.explore import spans
from evaluator.report.gallery import Gallery
from evaluator.report.listing import SampleList
from evaluator.report.text import number, plain
from evaluator.store import schemas
from evaluator.store.rundir import RunDirectory
from tests.report.conftest import (
    COLOURS,
    METRICS,
    attention_table,
    has_error,
    picture,
    prompt,
    score_of,
)
from tests.report.test_page import Outline, outline

Make = Callable[..., RunDirectory]


def data_of(page: Outline) -> dict[str, Any]:
    """What the page's script gets."""
    (content,) = page.texts["data"]
    record: dict[str, Any] = json.loads(content)
    return record


@pytest.fixture(scope="module")
def folder(scored_run: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(scored_run, tmp_path_factory.mktemp("scored") / "report").parent


@pytest.fixture(scope="module")
def data(folder: Path) -> dict[str, Any]:
    return data_of(outline(folder))


def text_of(data: dict[str, Any], name: str) -> list[str | None]:
    coded = data["texts"][name]
    return [coded["values"][code] if code >= 0 else None for code in coded["codes"]]


def test_every_sample_is_listed_with_what_its_tables_say(data: dict[str, Any]) -> None:
    assert data["spans"] == [[0, 8], [8, 8], [16, 4]]
    assert data["keys"] == [f"k{i:04d}" for i in range(20)]
    assert data["seeds"] == [7 * i + 1 for i in range(20)]
    assert text_of(data, "prompt") == [plain(prompt(i)) for i in range(20)]
    assert text_of(data, "error") == [
        "the prompt is <empty>" if i == 5 else None for i in range(20)
    ]
    assert data["truncated"] == [3, 12]
    colour = data["tags"]["colour"]
    assert [colour["values"][code] for code in colour["codes"]] == [
        COLOURS[i % 4] for i in range(20)
    ]


def test_scores_stand_beside_their_samples_with_their_tables(data: dict[str, Any]) -> None:
    scores = {score["name"]: score for score in data["scores"]}
    cosine = scores["clip text_cosine"]
    assert (cosine["file"], cosine["column"]) == ("features-clip-0123abcd.parquet", "text_cosine")
    for i, value in enumerate(cosine["values"]):
        assert value == (None if has_error(i) else pytest.approx(score_of(i), rel=1e-5)), i
    assert scores["clip confident"]["values"] == [int(i % 3 == 0) for i in range(20)]
    distances = scores["memorization distance"]["values"]
    assert distances == [pytest.approx(1 / (i + 1), rel=1e-5) if i % 2 == 0 else None
                         for i in range(20)]  # fmt: skip
    nearest = data["nearest"][0]["names"]
    assert nearest["values"][nearest["codes"][0]] == "<b>real</b>.png"
    assert nearest["values"][nearest["codes"][2]] == "r2 · 0"
    assert nearest["codes"][1] == -1


def test_no_text_can_leave_the_data(folder: Path, data: dict[str, Any]) -> None:
    html = (folder / "index.html").read_text(encoding="utf-8")
    raw = html.partition('id="samples-data">')[2].partition("</script>")[0]
    assert not set(raw) & set("<>&\u2028\u2029\x1b")
    assert '<script>document.title="owned"</script> a sly red three' in text_of(data, "prompt")[1]
    assert data["tags"]["=tag"]["values"] == ["</script>0", "</script>1"]
    assert json.loads(raw) == data


def test_the_first_page_stands_in_the_page_itself(folder: Path) -> None:
    page = outline(folder)
    tiles = [a for a in page.named("figure") if (a.get("class") or "") == "tile"]
    assert [tile["id"] for tile in tiles] == [f"sample-{i}" for i in range(20)]
    assert "All 20 committed samples are listed." in page.visible
    names = {str(a["id"]) for _, a in page.tags if "id" in a}
    assert {"filter", "filter-only", "filter-score", "filter-low", "filter-high", "sort",
            "sort-order", "filter-clear", "gallery", "gallery-count", "gallery-pages",
            "sample-panel", "panel-body", "panel-close", "filter-tag-1"} <= names  # fmt: skip


def test_every_control_has_a_label(folder: Path) -> None:
    html = (folder / "index.html").read_text(encoding="utf-8")
    gallery = html[html.index('id="gallery-controls"') : html.index('id="gallery"')]
    for piece in gallery.split("<label>")[1:]:
        assert piece.partition("<")[0].strip(), piece[:80]
    assert gallery.count("<select") + gallery.count("<input") == gallery.count("<label>")


@pytest.mark.parametrize("number", [0, 1, 7, 40])
def test_as_many_pictures_as_asked_for_and_no_other_is_decoded(
    scored_run: RunDirectory, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    decode = images.decode
    monkeypatch.setattr(images, "decode", lambda c: decoded.append(1) or decode(c))
    folder = write_report(scored_run, tmp_path / "report", thumbnails=number).parent
    files = sorted(path.stem for path in folder.glob("thumbs/*"))
    there = min(number, 19)
    assert len(files) == len(decoded) == there
    page = outline(folder)
    shown = data_of(page)["thumbnails"]
    assert [f"{i:06d}" for first, count in shown for i in range(first, first + count)] == files
    if 0 < there < 19:
        assert f"{there} of 19 images have a picture here" in page.visible
    if number == 0:
        assert "none was asked for" in page.visible
    if number == 1:
        assert files == ["000001"], "the lowest of the first score: not confident"


def test_pictures_of_the_gallery_are_the_images(folder: Path) -> None:
    for i in (0, 7, 19):
        with Image.open(folder / f"thumbs/{i:06d}.webp") as shown:
            expected = Image.open(io.BytesIO(picture(i, 32))).convert("RGB")
            assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(expected))


def test_a_single_file_holds_everything(full_run: RunDirectory, tmp_path: Path) -> None:
    folder = write_report(full_run, tmp_path / "report", single_file=True).parent
    assert [path.name for path in folder.iterdir()] == ["index.html"]
    page = outline(folder)
    for tag, attributes in page.tags:
        target = attributes.get("src") or attributes.get("href")
        assert target is None or target.startswith(("#", "data:image/")), f"<{tag} {target[:50]}>"
    inside = data_of(page)["inside"]
    names = {f"thumbs/{i:06d}.webp" for i in range(20) if not has_error(i)}
    assert names == {name for name in inside if name.startswith("thumbs/")}
    assert [name for name in inside if name.startswith("maps/000000")]
    for address in inside.values():
        content = b64decode(address.removeprefix("data:image/webp;base64,"))
        assert Image.open(io.BytesIO(content)).format == "WEBP"
    assert "written without --single-file" in page.visible


def test_a_single_file_that_would_be_too_large_says_what_is_left_out(
    scored_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single, "MAX_BYTES", 1000)
    page = write_report(scored_run, tmp_path / "report", single_file=True)
    shown = Outline(page.read_text(encoding="utf-8"))
    inside = data_of(shown)["inside"]
    assert 0 < len(inside) < 19
    assert f"{19 - len(inside)} pictures are left out" in shown.visible
    thumbs = [a["src"] or "" for a in shown.named("img")]
    assert len(thumbs) == len([t for t in thumbs if t.startswith("data:")])


def test_curves_and_maps_of_single_samples(full_report: Path) -> None:
    data = data_of(outline(full_report))
    details = data["details"]
    assert details["steps"] == list(range(10))
    assert details["measures"] == ["Deviation of latents", "Strength of guidance, ‖c − u‖ / √d",
                                   "Deviation of predicted noise"]  # fmt: skip
    assert sorted(map(int, details["curves"])) == [i for i in range(20) if not has_error(i)]
    assert sorted(map(int, details["maps"])) == [i for i in range(20) if i % 4 != 3 and i != 5]
    maps = details["maps"]["0"]
    assert maps["columns"] == ["all steps", "0", "3", "6", "9"]
    for i in range(len(maps["words"])):
        with Image.open(full_report / f"maps/000000-{i:02d}.webp") as strip:
            assert strip.size == (64 * 5, 64)


def test_groups_have_a_table_of_their_own(make_run: Make) -> None:
    run = make_run(probes=False)
    grouped = [
        METRICS[1] | {"group": {"region": value}, "value": number, "warnings": []}
        for value, number in (("Asia", 91.5), ("<Africa>", 92.5))
    ]
    record = {"format": 1, "samples": {"committed": 20}, "metrics": [*METRICS, *grouped]}
    run.write("metrics.json", json.dumps(record).encode())
    page = outline(write_report(run).parent)
    assert "By region" in page.visible
    assert "<Africa>" in page.visible
    values = [cell["data-value"] for cell in page.named("td") if cell.get("data-value")]
    assert {"91.5", "92.5"} <= set(values)
    assert "clip_score [region=Asia]" not in page.visible, "not among the results of all samples"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": False}, "this run did not keep its images"),
        ({"missing_shards": (1,)}, "All 12 committed samples are listed."),
        ({"missing_shards": (0, 1, 2)}, "No shard is committed yet."),
        ({"metrics": False}, "has not been aggregated yet"),
        ({"timings": False}, "has a score of single samples"),
    ],
    ids=str,
)
def test_what_is_missing_is_said_and_the_rest_shown(
    make_run: Make, changes: dict[str, Any], said: str
) -> None:
    page = outline(write_report(make_run(probes=False, **changes)).parent)
    assert said in page.visible
    assert "Provenance" in page.visible
    if "missing_shards" in changes and len(changes["missing_shards"]) == 1:
        assert data_of(page)["spans"] == [[0, 8], [16, 4]]


def test_tables_of_an_older_version_are_completed(make_run: Make) -> None:
    run = make_run(num_samples=8, probes=False)
    path = run.shard_path(0) / "samples.parquet"
    older = schemas.read_table(path, kind="samples").drop_columns(["flaw", "tags"])
    note = json.dumps({"kind": "samples", "version": 1})
    pq.write_table(older.replace_schema_metadata({"evaluator.schema": note}), path)
    data = data_of(outline(write_report(run).parent))
    assert len(data["keys"]) == 8
    assert data["tags"] == {}


def test_tables_too_large_to_read_are_said_to_be_left_out(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(num_samples=3)
    monkeypatch.setattr(survey, "MAX_LAYER_BYTES", 10)
    page = outline(write_report(run).parent)
    assert "heatmaps_layers.parquet of shard 00000 has 0 MiB, more than a report" in page.visible
    assert "Words by layer" not in page.visible


def test_samples_observed_in_full_show_every_layer(make_run: Make, full_report: Path) -> None:
    folder = write_report(make_run(num_samples=3, full=True)).parent
    page = outline(folder)
    assert "Every layer by step" in page.visible
    assert "From attention_full.parquet" in page.visible
    drawing = (folder / "layer-steps.svg").read_text(encoding="utf-8")
    assert [name for name in ("down-8x8", "mid-4x4", "up-8x8") if name in drawing]
    rows = attention_table(range(3)).to_pylist()
    cell = [row["sharpness"] for row in rows
            if row["key"] == "k0000" and row["layer"] == "mid-4x4" and row["step"] == 4
            and row["word"] >= 0]  # fmt: skip
    assert f"mid-4x4, step 4: {number(float(np.mean(cell)))}" in drawing
    assert "Every layer by step" not in outline(full_report).visible


def test_a_large_run_lists_the_first_samples_and_counts_the_rest(
    scored_run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluator.report.listing.MAX_ROWS", 10)
    page = outline(write_report(scored_run, tmp_path / "report").parent)
    data = data_of(page)
    assert data["spans"] == [[0, 8], [8, 2]]
    assert "The first 10 of 20 committed samples are listed" in page.visible
    assert "clip text_cosine of 19 samples" in page.visible, "all of them are in the numbers"


def test_the_verb_takes_both_options(scored_run: RunDirectory, tmp_path: Path) -> None:
    target = str(tmp_path / "report")
    arguments = ["report", str(scored_run.path), "--output", target, "--thumbnails", "2"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert len(list((tmp_path / "report/thumbs").iterdir())) == 2
    done = CliRunner().invoke(app, [*arguments, "--single-file"])
    assert done.stdout.strip() == f"{target}/index.html"
    assert not (tmp_path / "report/thumbs").exists()
    assert CliRunner().invoke(app, [*arguments[:-1], "-1"]).exit_code == 2


def test_spans_say_the_same_positions() -> None:
    positions = [0, 1, 2, 5, 9, 10]
    found = spans(positions)
    assert found == [[0, 3], [5, 1], [9, 2]]
    assert [i for first, count in found for i in range(first, first + count)] == positions
    assert spans([]) == []


def test_a_gallery_without_samples_is_empty(tmp_path: Path) -> None:
    assert Gallery(tmp_path).first_page(SampleList(0)) == []

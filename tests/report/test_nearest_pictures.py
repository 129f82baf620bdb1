"""The nearest image of a reference is shown where it can be read, and else it is said why not."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from evaluator.data import open_source
from evaluator.report import nearest, write_report
from evaluator.store.rundir import RunDirectory
from tests.report.conftest import Recipe, build
from tests.report.references import METRIC, colour_of, packed, squares, with_nearest


def shown(page: Path) -> dict[str, Any]:
    """What the page's script gets of the metric."""
    text = page.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="samples-data">(.*?)</script>', text)
    assert data is not None
    (found,) = json.loads(data[1])["nearest"]
    return dict(found)


def colours(page: Path) -> dict[int, tuple[int, int, int]]:
    """Position of a sample → colour of the picture beside it."""
    found = {}
    for place, (number, crisp, _) in shown(page)["pictures"].items():
        assert crisp
        with Image.open(page.parent / "nearest" / f"{number}.webp") as image:
            found[int(place)] = image.convert("RGB").getpixel((3, 3))
    return found  # type: ignore[return-value]


def test_each_sample_is_shown_with_its_own_nearest_image(tmp_path: Path) -> None:
    run = with_nearest(tmp_path / "run", {"pack": str(packed(tmp_path))})
    page = write_report(run)
    assert colours(page) == {i: colour_of(i) for i in range(0, 20, 2)}
    found = shown(page)
    assert found["measure"] == (
        "largest cosine similarity, features of digits bfa3bcfe, reference training (n = 20)"
    )
    assert found["pictures"]["2"][2] == "distance 0.33333"


def test_single_file_holds_the_pictures(tmp_path: Path) -> None:
    run = with_nearest(tmp_path / "run", {"pack": str(packed(tmp_path))})
    page = write_report(run, single_file=True)
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    assert '"nearest/00-00000.webp":"data:image/webp' in page.read_text()


def test_tars_that_were_indexed_in_place_are_read_there(tmp_path: Path) -> None:
    squares(tmp_path / "images")
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as tar:
        for path in sorted((tmp_path / "images").iterdir()):
            tar.add(path, path.name)
    found = open_source(tmp_path / "tars", cache=tmp_path / "cache")
    init = tmp_path / "reference" / "init"
    init.mkdir(parents=True)
    source = {"prompts": {"source": str(tmp_path / "tars")}}
    (init / "config.yaml").write_text(yaml.safe_dump(source))
    place = {"pack": str(found.path), "run": str(tmp_path / "reference")}
    run = with_nearest(tmp_path / "run", place)
    assert colours(write_report(run))[4] == colour_of(4)
    shutil.rmtree(tmp_path / "tars")
    assert "not on this machine" in shown(write_report(run))["why"]
    (init / "config.yaml").write_text("[" * 5000 + "]" * 5000)
    assert "not on this machine" in shown(write_report(run))["why"]


def test_images_that_another_run_kept_are_read_from_its_shards(tmp_path: Path) -> None:
    other = build(tmp_path / "other", Recipe(probes=False))
    run = with_nearest(tmp_path / "run", {"run": str(other.path)})
    table = run.path / "metrics" / f"{METRIC}.parquet"
    rename_nearest(run, table, "k{:04d}")
    assert len(shown(write_report(run))["pictures"]) == 10
    for index in range(other.num_shards):
        (other.shard_path(index) / "images.tar").unlink()
    assert "did not keep its images" in shown(write_report(run))["why"]


def rename_nearest(run: RunDirectory, table: Path, form: str) -> None:
    """Let sample i be nearest to `form` of i."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pq.read_table(table)
    keys = pa.array([form.format(int(key[1:])) for key in rows.column("nearest_key").to_pylist()])
    place = rows.schema.get_field_index("nearest_key")
    pq.write_table(rows.set_column(place, rows.schema.field(place), keys), table)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        (None, "asked.json does not say where this reference lies"),
        ({"pack": "gone"}, "no longer where it was"),
        ({"moments": "stats.npz"}, "only moments are known"),
        ({"run": "gone"}, "could not be read"),
        ({"pack": 3, "run": ["?"]}, "only moments are known"),
    ],
)
def test_where_none_can_be_shown_the_page_says_why(
    tmp_path: Path, place: dict[str, Any] | None, why: str
) -> None:
    page = write_report(with_nearest(tmp_path / "run", place, num_samples=4))
    assert why in shown(page)["why"]
    assert shown(page)["pictures"] == {}
    assert not (page.parent / "nearest").exists()


@pytest.mark.parametrize(
    "record", ["", "[]", '{"references": []}', '{"references": {"training": 1}}']
)
def test_a_strange_asked_json_is_no_failure(tmp_path: Path, record: str) -> None:
    run = with_nearest(tmp_path / "run", None, num_samples=4)
    run.write("asked.json", record.encode())
    assert "asked.json does not say" in shown(write_report(run))["why"]


def test_damaged_images_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = packed(tmp_path)
    (tar,) = folder.glob("*.tar")
    content = bytearray(tar.read_bytes())
    with tarfile.open(tar) as members:
        damaged = next(m for m in members if m.name == "r4.png")
        content[damaged.offset_data + 60] ^= 0xFF
    tar.write_bytes(content)
    found = shown(write_report(with_nearest(tmp_path / "run", {"pack": str(folder)})))
    assert "4" not in found["pictures"]
    assert len(found["pictures"]) == 9
    assert found["why"].startswith("9 of 10 images of the reference are shown")


def test_no_more_is_read_than_the_limits_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = with_nearest(tmp_path / "run", {"pack": str(packed(tmp_path))})
    monkeypatch.setattr(nearest, "MAX_PICTURES", 3)
    found = shown(write_report(run))
    assert len(found["pictures"]) == 3
    assert found["why"] == "3 of 10 images of the reference are shown: as many as fit."
    monkeypatch.setattr(nearest, "MAX_BYTES", 100)
    assert len(shown(write_report(run))["pictures"]) == 1
    monkeypatch.setattr(nearest, "MAX_KEYS", 19)
    assert "more than 19 images" in shown(write_report(run))["why"]

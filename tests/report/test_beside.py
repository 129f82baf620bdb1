"""A page takes its place beside data whole, and never that of somebody else's files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evaluator.errors import RunDirectoryError
from evaluator.report.beside import page_folder

KIND = {"record": "a.json", "generator": "evaluator a"}
PAGE = '<meta name="generator" content="evaluator a">'


def write(folder: Path, page: str = PAGE) -> None:
    with page_folder(folder, **KIND) as aside:
        (aside / "index.html").write_text(page)
        (aside / "pictures").mkdir()
        (aside / "pictures" / "0.png").write_text(page)


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_data_stay_and_the_older_page_goes(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    (folder / "a.parquet").write_text("rows")
    write(folder, PAGE + "older")
    (folder / "pictures" / "1.png").write_text("of the older page")
    write(folder)
    assert content(folder) == {
        "a.json": "{}", "a.parquet": "rows", "index.html": PAGE, "pictures/0.png": PAGE,
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_pages_written_at_once_all_succeed_and_the_last_keeps_its_own_pictures(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a"
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda i: write(folder, f"{PAGE}{i}"), range(40)))
    found = content(folder)
    assert set(found) == {"index.html", "pictures/0.png"}
    assert found["index.html"] == found["pictures/0.png"]


def fail(folder: Path) -> None:
    with page_folder(folder, **KIND) as aside:
        (aside / "index.html").write_text("half")
        raise KeyError


def test_a_failure_leaves_the_older_page_and_no_rest(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write(folder)
    with pytest.raises(KeyError):
        fail(folder)
    assert content(folder)["index.html"] == PAGE
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["notes.txt", "index.html", "sub/a.json"])
def test_folders_of_others_are_refused_untouched(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")
    before = content(folder)
    with pytest.raises(RunDirectoryError, match="that `evaluator a` wrote, got other files"):
        write(folder)
    assert content(folder) == before


def test_a_folder_with_a_record_and_foreign_folders_is_refused(tmp_path: Path) -> None:
    """It is no folder of ours then, whatever its record is called."""
    (tmp_path / "a" / "work").mkdir(parents=True)
    (tmp_path / "a" / "a.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="Choose another --output"):
        write(tmp_path / "a")
    assert (tmp_path / "a" / "work").is_dir()


def test_the_current_folder_stays_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that stands there would look into a folder that is gone."""
    monkeypatch.chdir(tmp_path)
    write(Path("."))
    assert set(content(Path("."))) == {"index.html", "pictures/0.png"}


def test_what_a_killed_process_left_aside_stops_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / ".page.left").mkdir()
    write(tmp_path / "a", PAGE + "newer")
    assert content(tmp_path / "a")["index.html"] == PAGE + "newer"


def test_a_first_page_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fail(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(RunDirectoryError, match="got a file"):
        write(tmp_path / "a")

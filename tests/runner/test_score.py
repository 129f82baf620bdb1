"""`score`: two sets of images in one line, on real digits in every form that images come in."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluator.cli import main
from evaluator.demo.digits import TEST_PARQUET
from evaluator.errors import ConfigError
from evaluator.runner.score import ScoreRequest, score_config
from evaluator.runner.trust import Trust
from evaluator.store.claims import Claims, Worker
from tests.runner.conftest import STARTED, bytes_of, command, launch
from tests.runner.test_worlds import assert_same_numbers
from tests.waiting import PATIENCE, until

METRICS = "fd_digits,kd_digits,prdc_digits"
CLIP = "clip=package://evaluator/demo/weights/clip"
SETTINGS = ["--set", "runtime.threads=1", "--batch-size", "16", "--set", "runtime.shard_size=16"]


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`made/` and `real/` with digits that are not the others', and captions of the made ones."""
    folder = tmp_path_factory.mktemp("digits")
    rows = sorted(pq.read_table(TEST_PARQUET).to_pylist(), key=lambda row: row["key"])
    for name, chosen in (("made", rows[:60]), ("real", rows[60:160]), ("many", rows)):
        (folder / name).mkdir()
        for row in chosen:
            (folder / name / f"{row['key']}.png").write_bytes(row["image"])
    texts = "".join(f"{row['text']}\n" for row in rows[:60])
    (folder / "captions.txt").write_text(texts)
    return folder


def folder_of(made: Path, tmp_path: Path) -> Path:
    return made


def zip_of(made: Path, tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as archive:
        for path in made.iterdir():
            archive.write(path, f"made/{path.name}")
    return tmp_path / "made.zip"


def tar_of(made: Path, tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "made.tar", "w") as tar:
        for path in sorted(made.iterdir()):
            tar.add(path, path.name)
    return tmp_path / "made.tar"


def npz_of(made: Path, tmp_path: Path) -> Path:
    pixels = [np.asarray(Image.open(path)) for path in sorted(made.iterdir())]
    np.savez_compressed(tmp_path / "made.npz", np.stack(pixels), np.arange(len(pixels)) % 10)
    return tmp_path / "made.npz"


class Ended:
    """How a call of the command line ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALUATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def score(
    digits: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ended]:
    """Call `evaluator score` from the folder with the digits."""
    monkeypatch.chdir(digits)

    def run(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as left:
            main(["score", *map(str, arguments), *SETTINGS])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Ended(int(left.value.code or 0), captured.out, captured.err)

    return run


def metrics_of(run: Path) -> dict[str, Any]:
    record = json.loads((run / "metrics.json").read_text())
    return {metric["name"]: metric for metric in record["metrics"]}


@pytest.mark.parametrize("form", [zip_of, tar_of, npz_of])
def test_the_same_images_score_the_same_in_every_form(score, digits, tmp_path, form) -> None:
    images = form(digits / "made", tmp_path)
    for name, source in (("folder", digits / "made"), ("other", images)):
        ended = score(
            source, "--against", "real", "--metrics", METRICS, "--output", tmp_path / name
        )
        assert ended.status == 0, ended.err
    assert_same_numbers(tmp_path / "other", tmp_path / "folder")
    assert metrics_of(tmp_path / "other")["fd_digits"]["reference"] == {"name": "real", "n": 100}


def test_it_says_the_numbers_and_where_the_run_is(score, cache) -> None:
    ended = score("made", "--against", "real", "--metrics", "fd_digits, is_digits")
    assert ended.status == 0
    assert "fd_digits ↓" in ended.out
    assert "is_digits ↑" in ended.out
    assert "60/60 samples" in ended.out
    (run,) = (cache / "scores").iterdir()
    assert f"run: {run}" in ended.out


def test_the_same_command_answers_at_once_from_any_folder(score, digits, cache) -> None:
    arguments = ["--against", digits / "real", "--metrics", METRICS]
    first = score("made", *arguments)
    code = (
        "import sys\nfrom evaluator.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('HEAVY', sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    again = subprocess.run(
        [sys.executable, "-c", code, "score", digits / "made", *arguments, *SETTINGS],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, cwd="/",
    )  # fmt: skip
    assert again.stdout == first.out + "HEAVY []\n"
    assert again.stderr == "", "nothing is worked on"


def test_another_reference_embeds_only_what_is_new(score, cache) -> None:
    first = score("made", "--against", "real", "--metrics", "fd_digits")
    (run,) = (cache / "scores").iterdir()
    before = {path: path.stat().st_mtime_ns for path in run.glob("shards/*/*")}
    second = score("made", "--against", "many", "--metrics", "fd_digits")
    assert {path: path.stat().st_mtime_ns for path in run.glob("shards/*/*")} == before
    assert second.out != first.out
    assert score("made", "--against", "real", "--metrics", "fd_digits").out == first.out


def test_changed_images_are_another_run(score, digits, cache, tmp_path) -> None:
    shutil.copytree(digits / "made", tmp_path / "made")
    for _ in range(2):
        score(tmp_path / "made", "--metrics", "is_digits")
        next((tmp_path / "made").iterdir()).unlink()
    assert len(list((cache / "scores").iterdir())) == 2


def test_two_processes_give_the_same_bytes_and_one_of_them_speaks(score, digits, tmp_path) -> None:
    arguments = [str(digits / "made"), "--against", str(digits / "many"), "--metrics", METRICS]
    alone, both = tmp_path / "alone", tmp_path / "both"
    ended = score(*arguments, "--output", alone)
    done = launch(
        "torchrun", 2, ["score", *arguments, "--output", str(both), *SETTINGS],
        cache=tmp_path / "cache-of-two",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert bytes_of(both) == bytes_of(alone)
    assert_same_numbers(both, alone)
    assert done.stdout.replace(str(both), str(alone)) == ended.out
    assert done.stderr.count("60 of 60 images are among those of --against") == 1


def test_a_fault_is_told_once_under_several_processes(digits, tmp_path) -> None:
    arguments = [
        "score",
        str(digits / "made"),
        "--against",
        str(digits / "raal"),
        "--metrics",
        "fd_digits",
    ]
    done = launch("torchrun", 2, arguments, cache=tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("did you mean") == 1


def test_a_score_told_to_stop_leaves_75_and_is_continued(score, digits, tmp_path) -> None:
    arguments = [str(digits / "many"), "--limit", "160", "--metrics", "is_digits,vendi_digits"]  # fmt: skip
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    assert score(*arguments, "--output", stopped).status == 0
    for index in (7, 8, 9):
        shutil.rmtree(stopped / "shards" / f"{index:05d}")
    # Another has the last shard, so that this one cannot be done before it is told to stop.
    other = Claims(stopped / "claims", Worker.current(1), lease_seconds=3600)
    held = other.take("00009")
    assert held is not None
    worker = subprocess.Popen(
        [*command("python", 1), "score", *arguments, *SETTINGS, "--output", str(stopped)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    STARTED.append(worker)
    until(
        "it makes a shard", lambda: (stopped / "shards/00007").exists() or worker.poll() is not None
    )
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=PATIENCE)
    other.release(held)
    assert worker.returncode == 75, output
    assert "Run the same command again" in output
    committed = bytes_of(stopped)
    assert committed
    for path in (stopped, whole):
        ended = score(*arguments, "--output", path)
        assert ended.status == 0, ended.err
    assert committed.items() <= bytes_of(stopped).items()
    assert bytes_of(stopped) == bytes_of(whole)
    assert_same_numbers(stopped, whole)


def test_the_numbers_go_to_a_file_and_to_a_pipe(score, tmp_path) -> None:
    arguments = ["made", "--metrics", "is_digits", "--output", tmp_path / "run"]
    score(*arguments, "--json", tmp_path / "numbers.json")
    numbers = (tmp_path / "numbers.json").read_text()
    assert numbers == (tmp_path / "run" / "metrics.json").read_text()
    piped = score(*arguments, "--json", "-")
    assert json.loads(piped.out) == json.loads(numbers)
    assert "is_digits ↑" in piped.err
    refused = score(*arguments, "--json", tmp_path / "nowhere" / "numbers.json")
    assert refused.status == 2
    assert "make the folder first" in refused.err


def test_captions_in_a_file_give_the_clip_score(score, digits, tmp_path) -> None:
    arguments = ["--metrics", "clip_score", "--weights", CLIP]
    bare = score("made", *arguments)
    assert bare.status == 2
    assert "IMAGES: expected captions, which clip_score compares the images with" in bare.err
    assert "give --captions FILE" in bare.err
    right = score("made", *arguments, "--captions", "captions.txt", "--output", tmp_path / "right")
    assert right.status == 0, right.err
    lines = (digits / "captions.txt").read_text().splitlines(keepends=True)
    (tmp_path / "shifted.txt").write_text("".join(lines[1:] + lines[:1]))
    score(
        "made", *arguments, "--captions", tmp_path / "shifted.txt", "--output", tmp_path / "wrong"
    )
    values = [metrics_of(tmp_path / name)["clip_score"]["value"] for name in ("right", "wrong")]
    assert values[0] > values[1] + 10, "each caption reaches its own image"


def test_a_report_is_written_on_request(score, tmp_path) -> None:
    ended = score("made", "--metrics", "is_digits", "--output", tmp_path / "run", "--report")
    assert f"report: {tmp_path / 'run' / 'report'}" in ended.out
    assert list((tmp_path / "run" / "report").iterdir())


def test_an_image_that_cannot_be_read_is_named_and_the_rest_counts(score, digits, tmp_path) -> None:
    shutil.copytree(digits / "made", tmp_path / "made")
    (tmp_path / "made" / "x.png").write_bytes(b"\x89PNG but no more")
    ended = score(tmp_path / "made", "--against", "real", "--metrics", "fd_digits", "--output", tmp_path / "run")  # fmt: skip
    assert ended.status == 1
    assert "61/61 samples, 1 with an error" in ended.out
    assert "sample error: x[0]: x.png: undecodable" in ended.err
    assert metrics_of(tmp_path / "run")["fd_digits"]["n"] == 60


def test_images_of_many_sizes_are_scored_together(score, digits, tmp_path) -> None:
    shutil.copytree(digits / "made", tmp_path / "made")
    for number, path in enumerate(sorted((tmp_path / "made").iterdir())):
        image = Image.open(io.BytesIO(path.read_bytes()))
        image.resize((20 + number, 70 - number)).save(path)
    ended = score(tmp_path / "made", "--against", "real", "--metrics", "fd_digits")
    assert ended.status == 0, ended.err


@pytest.mark.parametrize(
    ("images", "real", "warning"),
    [
        ("made", "made", "IMAGES and --against hold the same images"),
        ("many", "real", "100 of 359 images are among those of --against too, byte for byte"),
        ("made", "real", None),
    ],
)
def test_images_that_are_on_both_sides_are_warned_of(score, images, real, warning) -> None:
    ended = score(images, "--against", real, "--metrics", "fd_digits")
    assert ended.status == 0
    assert (warning in ended.err) if warning else ("warning" not in ended.err)


def test_too_few_real_images_are_a_sentence_at_the_number(score, digits, tmp_path) -> None:
    (tmp_path / "few").mkdir()
    for path in sorted((digits / "real").iterdir())[:3]:
        shutil.copy(path, tmp_path / "few")
    ended = score("made", "--against", tmp_path / "few", "--metrics", "prdc_digits,fd_digits")
    assert ended.status == 1
    flat = " ".join(ended.out.split())
    assert "expected more than k=5 generated and reference samples, got 60 and 3" in flat
    assert "fd_digits ↓" in ended.out


def test_moments_and_runs_stand_for_real_images(score, tmp_path) -> None:
    arguments = ["--metrics", "fd_digits"]
    score("made", "--against", "real", *arguments, "--output", tmp_path / "images")
    score("real", "--metrics", "vendi_digits", "--output", tmp_path / "real")
    tables = [pq.read_table(path) for path in (tmp_path / "real").glob("shards/*/features-*")]
    features = np.array(pa.concat_tables(tables).column("features").to_pylist(), np.float64)
    np.savez(tmp_path / "real.npz", mu=features.mean(0), sigma=np.cov(features.T))
    for reference in ("real", "real.npz"):
        ended = score("made", "--against", tmp_path / reference, *arguments, "--output", tmp_path / f"by-{reference}")  # fmt: skip
        assert ended.status == 0, ended.err + ended.out
        values = [metrics_of(tmp_path / run)["fd_digits"]["value"] for run in ("images", f"by-{reference}")]  # fmt: skip
        assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_moments_beside_real_images_are_taken_when_asked_for(score, digits, tmp_path) -> None:
    pixels = [np.array(Image.open(path)) for path in sorted((digits / "real").glob("*.png"))]
    both = tmp_path / "both.npz"
    np.savez(both, arr_0=np.stack(pixels), mu=np.full(64, 9.0), sigma=np.eye(64))
    arguments = ["made", "--against", both, "--metrics", "fd_digits"]
    images = score(*arguments, "--output", tmp_path / "images")
    moments = score(
        *arguments, "--set", f"references.real.moments={both}", "--output", tmp_path / "moments"
    )
    assert f"--set references.real.moments={both}" in images.err
    assert "beside its images" not in moments.err
    by_images, by_moments = (
        metrics_of(tmp_path / run)["fd_digits"]["value"] for run in ("images", "moments")
    )
    assert by_moments > 9.0**2 > by_images
    assert "holds mu and sigma" not in score(*arguments[:3], "--metrics", "kd_digits").err


def test_a_limit_takes_the_first_images_only(score) -> None:
    assert "20/20 samples" in score("made", "--metrics", "is_digits", "--limit", 20).out


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["mad", "--against", "reel", "--captions", "caption.txt", "--metrics", "fidd"],
         ["IMAGES: mad: expected a file or folder, got nothing there; did you mean made?",
          "--against: reel: ", "--captions: caption.txt: ", "got 'fidd'; did you mean 'fid'?"]),
        (["made", "--metrics", "fd_digitz,incption_score"],
         ["did you mean 'inception_score'", "extractor 'digitz': ", "Did you mean 'digits'?",
          "expected real images to compare with for fd_digitz, got none"]),
        (["made"], ["expected real images to compare with for fid, kid, prdc, got none"]),
        (["made", "--metrics", " , "], ["expected names, such as fid,kid,prdc, got none"]),
        (["made", "--metrics", "is_digits", "--weights", "digit=x", "--weights", "y"],
         ["the metrics use, got 'digit'; did you mean 'digits'?", "expected extractor=location"]),
        (["made", "--metrics", "is_digits", "--weights", "digits=./no.pth"],
         ["--weights: digits: expected a file or folder, got nothing at no.pth"]),
        (["made", "--metrics", "is_digits", "--set", "metrics.is_digits.split=3"],
         ["got 'split'; did you mean 'splits'?"]),
        (["empty", "--against", "captions.txt", "--metrics", "fd_digits"],
         ["empty: expected images (png, jpg, jpeg, webp, bmp), got no files at all",
          "captions.txt: expected images, got prompts without any"]),
        (["moments.npz", "--metrics", "is_digits"],
         ["IMAGES: ", "got the moments of features (mu, sigma)", "references: {real: {moments"]),
        (["run", "--metrics", "is_digits"], ["run: expected images, got a run directory"]),
        (["ftp://host/images", "--metrics", "is_digits"], ["got the scheme 'ftp'"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_all_at_once(score, digits, cache, arguments, messages) -> None:
    (digits / "empty").mkdir(exist_ok=True)
    (digits / "run" / "init").mkdir(parents=True, exist_ok=True)
    (digits / "run" / "shards").mkdir(exist_ok=True)
    np.savez(digits / "moments.npz", mu=np.zeros(4), sigma=np.eye(4))
    ended = score(*arguments)
    assert ended.status == 2
    for message in messages:
        assert message in ended.err
    assert not (cache / "scores").exists()


def test_a_request_is_a_configuration_of_a_run(digits, monkeypatch) -> None:
    monkeypatch.chdir(digits)
    request = ScoreRequest(
        "made", "real", ("prdc_digits", "fd_digits", "clip_score", "fd_digits"),
        weights=("clip=captions.txt", "digits=some/model"), limit=7,
        overrides=("features.digits.options.resize=legacy", "metrics.prdc_digits.k=3"),
    )  # fmt: skip
    config = score_config(request, trust=Trust())
    assert (config.name, config.model.kind, config.runtime.images) == ("made", "images", "none")
    assert config.prompts.source == str(digits / "made")
    assert config.prompts.limit == 7
    assert config.references["real"].source == str(digits / "real")
    assert [metric.name for metric in config.metrics] == ["prdc_digits", "fd_digits", "clip_score"]
    assert config.metrics[0].options == {"k": 3}
    features = {feature.name: feature for feature in config.features}
    assert features["digits"].options == {"resize": "legacy"}
    assert features["digits"].id == "some/model"
    assert features["clip"].id == str(digits / "captions.txt")


def test_captions_ask_for_the_score_that_uses_them(digits, monkeypatch) -> None:
    monkeypatch.chdir(digits)
    with pytest.raises(ConfigError) as caught:
        score_config(ScoreRequest("made", captions="captions.txt"), trust=Trust())
    assert "for fid, kid, prdc, got none" in str(caught.value)
    request = ScoreRequest("made", metrics=("clip_score",), captions="captions.txt")
    assert score_config(request, trust=Trust()).prompts.captions == str(digits / "captions.txt")

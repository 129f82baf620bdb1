"""Forms: the images of the runs and nothing about the runs; and what no study can be made of."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluator.errors import EvaluatorError
from evaluator.study import MadeStudy, StudyRequest, make_study, read_study
from evaluator.study.forms import render_form
from tests.study.runs import COLOURS, make_run


def form_of(page: Path) -> dict[str, Any]:
    """The data of a form, as its script reads them."""
    found = re.search(r'<script type="application/json" id="form">(.*?)</script>', page.read_text())
    assert found is not None
    form: dict[str, Any] = json.loads(found[1])
    return form


def decoded(address: str) -> Image.Image:
    head, _, data = address.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def run_shown(address: str) -> str:
    """Which run made an image, told from its pixels alone."""
    corner = np.asarray(decoded(address).convert("RGB")).astype(int)[-1, 0]
    return min(COLOURS, key=lambda name: int(np.abs(corner - COLOURS[name]).sum()))


def test_forms_show_what_the_key_says(pairs: tuple[MadeStudy, Path]) -> None:
    made, folder = pairs
    study = read_study(folder)
    assert study == made.study
    for rater, page in zip(study.raters, made.forms, strict=True):
        form = form_of(page)
        assert (form["study"], form["rater"]) == (study.id, rater.name)
        for trial, asked in zip(rater.trials, form["trials"], strict=True):
            names = [study.sources[s.source].name for s in study.items[trial.item].images]
            shown = [run_shown(form["images"][k]) for k in asked["images"]]
            assert shown == (names[::-1] if trial.swapped else names)


def test_small_images_are_kept_to_the_bit(pairs: tuple[MadeStudy, Path]) -> None:
    made, _ = pairs
    form = form_of(made.forms[0])
    for address in form["images"]:
        image = decoded(address)
        assert image.size == (24, 24)
        assert not {"exif", "xmp", "icc_profile"} & set(image.info)
        colours = {tuple(c) for c in np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()}
        assert colours <= {*COLOURS.values(), (255, 255, 255)}


def test_nothing_in_a_form_tells_a_run_a_key_or_a_repetition(
    pairs: tuple[MadeStudy, Path], singles: tuple[MadeStudy, Path]
) -> None:
    for made in (pairs[0], singles[0]):
        for page in made.forms:
            text = page.read_text()
            for word in (
                "alpha",
                "beta",
                "gamma",
                "secretkey",
                "swapped",
                'repeat"',
                *(s.path for s in made.study.sources),
            ):
                assert word not in text
            form = form_of(page)
            assert set(form) == {"format", "version", "study", "rater", "trials", "images"}
            assert all(set(trial) == {"images", "prompt"} for trial in form["trials"])
            met = [k for trial in form["trials"] for k in trial["images"]]
            assert list(dict.fromkeys(met)) == list(range(len(form["images"])))


def test_prompts_are_text_and_can_be_left_out(runs: dict[str, Path], tmp_path: Path) -> None:
    two = [runs["alpha"], runs["beta"]]
    shown = make_study(StudyRequest(runs=two, raters=1), tmp_path / "shown")
    page = shown.forms[0].read_text()
    assert "<script>document.title" not in page
    assert "\x1b" not in page
    prompts = [trial["prompt"] for trial in form_of(shown.forms[0])["trials"]]
    assert '<script>document.title="owned"</script> a sly red one & "two"' in prompts
    hidden = make_study(StudyRequest(runs=two, raters=1, show_prompts=False), tmp_path / "hidden")
    assert {trial["prompt"] for trial in form_of(hidden.forms[0])["trials"]} == {None}


def test_a_page_lets_in_nothing_but_its_own_script(pairs: tuple[MadeStudy, Path]) -> None:
    text = pairs[0].forms[0].read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", text)


def test_the_same_request_gives_the_same_bytes(
    pairs: tuple[MadeStudy, Path], runs: dict[str, Path], tmp_path: Path
) -> None:
    made, folder = pairs
    three = [runs[name] for name in ("alpha", "beta", "gamma")]
    again = make_study(StudyRequest(runs=three, items=12, repeats=3, raters=3), tmp_path / "again")
    other = make_study(
        StudyRequest(runs=three, items=12, repeats=3, raters=3, seed=1), tmp_path / "other"
    )
    assert (folder / "study.json").read_bytes() == (tmp_path / "again" / "study.json").read_bytes()
    assert [p.read_bytes() for p in made.forms] == [p.read_bytes() for p in again.forms]
    assert other.study.id != made.study.id


def test_a_sample_without_an_image_in_one_run_is_not_asked(pairs: tuple[MadeStudy, Path]) -> None:
    keys = {shown.key for item in pairs[0].study.items for shown in item.images}
    assert "secretkey005" not in keys
    assert len(keys) == 11


def test_single_images_are_squares_of_one_side(tmp_path: Path) -> None:
    small, large = make_run(tmp_path / "alpha", side=24), make_run(tmp_path / "real", side=60)
    request = StudyRequest(
        runs=[small], kind="real-or-generated", reference=str(large), items=10, raters=1
    )
    made = make_study(request, tmp_path / "study")
    form = form_of(made.forms[0])
    assert {decoded(address).size for address in form["images"]} == {(24, 24)}
    assert any("different sizes (medians 24, 60 pixels)" in line for line in made.warnings)
    told = [run_shown(form["images"][trial["images"][0]]) for trial in form["trials"]]
    assert {told.count("real"), told.count("alpha")} <= {5, 6}
    assert all(trial["prompt"] is None for trial in form["trials"])


def test_real_images_may_be_a_folder(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVALUATOR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for number in range(6):
        Image.new("RGB", (40, 24), COLOURS["real"]).save(tmp_path / "photos" / f"{number}.png")
    request = StudyRequest(
        runs=[runs["alpha"]], kind="real-or-generated", reference=str(tmp_path / "photos"), raters=1
    )
    made = make_study(request, tmp_path / "study")
    form = form_of(made.forms[0])
    told = [run_shown(form["images"][trial["images"][0]]) for trial in form["trials"]]
    assert told.count("real") >= 6
    assert {decoded(address).size for address in form["images"]} == {(24, 24)}


def test_larger_images_are_scaled_to_the_side_asked_for(tmp_path: Path) -> None:
    two = [make_run(tmp_path / name, side=300, prompts=range(3)) for name in ("alpha", "beta")]
    made = make_study(StudyRequest(runs=two, raters=1, side=200), tmp_path / "study")
    images = form_of(made.forms[0])["images"]
    assert {decoded(address).size for address in images} == {(200, 200)}
    assert {run_shown(address) for address in images} == {"alpha", "beta"}


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    two = [make_run(tmp_path / place / "run", colour="alpha") for place in ("here", "there")]
    made = make_study(StudyRequest(runs=two, raters=1), tmp_path / "study")
    assert [source.name for source in made.study.sources] == ["here/run", "there/run"]


def test_prompts_that_differ_between_runs_are_left_out(tmp_path: Path) -> None:
    one = make_run(tmp_path / "alpha")
    other = make_run(
        tmp_path / "beta", text=lambda n: "another" if n < 4 else f"a prompt of number {n}"
    )
    made = make_study(StudyRequest(runs=[one, other], raters=1), tmp_path / "study")
    assert len(made.study.items) == 8
    assert made.warnings == ("4 samples have another prompt in another run: left out",)


Build = Callable[[Path], StudyRequest]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: StudyRequest(runs=[make_run(p / "alpha")]), "expected at least 2 runs for pairs, got 1"),
        (lambda p: StudyRequest(runs=[make_run(p / "alpha")] * 2), "expected different runs"),
        (
            lambda p: StudyRequest(runs=[make_run(p / "alpha"), make_run(p / "beta", images=False)]),
            "expected a run that kept images, got none of 12 samples",
        ),
        (
            lambda p: StudyRequest(runs=[make_run(p / "alpha"), make_run(p / "beta", prompts=range(20, 25))]),
            "no sample in common",
        ),
        (
            lambda p: StudyRequest(runs=[make_run(p / "alpha")], kind="real-or-generated"),
            "--reference: expected real images",
        ),
        (
            lambda p: StudyRequest(runs=[make_run(p / n) for n in ("alpha", "beta")], reference="x"),
            "--reference: expected none for pairs",
        ),
        (
            lambda p: StudyRequest(runs=[make_run(p / n) for n in ("alpha", "beta")], items=99),
            "--items: expected at most .* 12 different pairs of images, got 99",
        ),
        (lambda p: StudyRequest(runs=[p / "nothing", p / "there"]), "expected a run directory"),
        (
            lambda p: StudyRequest(runs=[p], kind="real-or-generated", raters=0, items=0),
            r"(?s)--reference.*--items.*--raters",
        ),
    ],
)  # fmt: skip
def test_what_no_study_can_be_made_of_is_said(tmp_path: Path, build: Build, message: str) -> None:
    with pytest.raises(EvaluatorError, match=message):
        make_study(build(tmp_path), tmp_path / "study")
    assert not (tmp_path / "study").exists()
    assert not list(tmp_path.glob("*.aside"))


def test_a_folder_with_something_in_it_is_not_written_to(
    pairs: tuple[MadeStudy, Path], runs: dict[str, Path]
) -> None:
    _, folder = pairs
    before = (folder / "study.json").read_bytes()
    with pytest.raises(EvaluatorError, match="expected a new or an empty folder"):
        make_study(StudyRequest(runs=[runs["alpha"], runs["beta"]], seed=3), folder)
    assert (folder / "study.json").read_bytes() == before


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    two = [make_run(tmp_path / name) for name in ("alpha", "beta")]
    tar = two[1] / "shards" / "00000" / "images.tar"
    tar.write_bytes(tar.read_bytes()[:4096])
    with pytest.raises(
        EvaluatorError, match=r"(?s)expected 24 images.*beta: secretkey011, image 0.*--verify"
    ):
        make_study(StudyRequest(runs=two, raters=1), tmp_path / "study")


def test_a_page_too_large_to_send_is_refused(pairs: tuple[MadeStudy, Path]) -> None:
    study = pairs[0].study
    shown = {s for item in study.items for s in item.images}
    addresses = dict.fromkeys(shown, "data:image/webp;base64," + "A" * (65 * 2**20 // len(shown)))
    with pytest.raises(
        EvaluatorError, match="at most 64 MiB, got 65 MiB .* lower --side or --items"
    ):
        render_form(study, study.raters[0], addresses, {})


def test_a_spoilt_image_has_its_own_tiles_in_other_places(tmp_path: Path) -> None:
    two = [make_run(tmp_path / name, side=32, prompts=range(8)) for name in ("alpha", "beta")]
    made = make_study(StudyRequest(runs=two, items=3, raters=1, checks=2), tmp_path / "study")
    form, rater = form_of(made.forms[0]), made.study.raters[0]
    num_checks = 0
    for trial, asked in zip(rater.trials, form["trials"], strict=True):
        if not made.study.items[trial.item].check:
            continue
        num_checks += 1
        sides = [np.asarray(decoded(form["images"][k]).convert("RGB")) for k in asked["images"]]
        good, bad = sides[::-1] if trial.swapped else sides
        tiles = [
            [part[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].tobytes() for y in range(4) for x in range(4)]
            for part in (good, bad)
        ]  # fmt: skip
        assert sorted(tiles[0]) == sorted(tiles[1])
        assert tiles[0] != tiles[1]
    assert num_checks == 2

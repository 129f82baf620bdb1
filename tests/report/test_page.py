"""The page opens anywhere, loads nothing from elsewhere, and runs nothing that a prompt says."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from evaluator.report import write_report
from evaluator.store.rundir import RunDirectory

VOID = {"meta", "img", "input", "link", "br", "hr"}


class Outline(HTMLParser):
    """Tags with their attributes, and the text inside each `style` and `script`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"style": [], "script": [], "data": []}
        self.visible = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        data = tag == "script" and dict(attrs).get("type") == "application/json"
        if tag not in VOID:
            self._open.append("data" if data else tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().replace("data", "script") == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in self.texts:
            self.texts[self._open[-1]].append(data)
        else:
            self.visible += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def outline(folder: Path) -> Outline:
    return Outline((folder / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(full_report: Path) -> Outline:
    return outline(full_report)


def test_loads_nothing_from_elsewhere(page: Outline, full_report: Path) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "srcset", "xlink:href"):
            target = attributes.get(name)
            if target is None or target.startswith("#"):
                continue
            assert "//" not in target, f"<{tag} {name}={target}>"
            assert ":" not in target
            assert (full_report / unquote(target)).is_file(), target


def test_policy_allows_exactly_the_inline_style_and_script(page: Outline) -> None:
    meta = [m for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    policy = meta[0]["content"] or ""
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        content = "".join(page.texts[kind])
        assert len(page.texts[kind]) == 1
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_no_attribute_that_the_policy_would_block(page: Outline) -> None:
    for tag, attributes in page.tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag


def test_hostile_prompt_is_shown_and_inert(page: Outline, full_report: Path) -> None:
    assert '<script>document.title="owned"</script> a sly red three & four' in page.visible
    assert len(page.named("script")) == 2
    html = (full_report / "index.html").read_text()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", html)


def test_secrets_of_the_configuration_are_left_out(page: Outline) -> None:
    assert "hf_verysecret" not in page.visible
    assert "sk-hidden" not in page.visible
    assert "hub_token: (redacted)" in page.visible
    assert "id: some/model" in page.visible


def test_names_the_run_and_says_how_complete_it_is(page: Outline) -> None:
    assert "digits & friends" in page.visible
    assert "Complete: 20 of 20 planned samples are committed." in page.visible
    assert "1 sample has an error." in page.visible
    assert "2 prompts were truncated" in page.visible
    assert "the prompt is <empty>" in page.visible


def test_results_carry_what_is_needed_to_believe_them(page: Outline) -> None:
    for said in ("12.346", "11.500 – 13.100", "19 / 20 (partial)", "bfa3bcfe", "real (n = 359)",
                 "19 samples: below 10,000", "FD at this n, jackknife"):  # fmt: skip
        assert said in page.visible, said


def test_is_accessible(page: Outline) -> None:
    assert page.named("html")[0]["lang"] == "en"
    assert all(image.get("alt") for image in page.named("img"))
    assert all(cell.get("scope") for cell in page.named("th"))
    ids = [str(attributes["id"]) for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for drawing in page.named("svg"):
        assert drawing["role"] == "img"
        assert set((drawing["aria-labelledby"] or "").split()) <= set(ids)


def test_every_curve_asked_for_is_there(full_report: Path) -> None:
    names = {path.stem for path in full_report.glob("*.svg")}
    latents = ("std", "eps-std", "norm-ratio", "cosine-previous", "guidance-norm")
    schedule = ("log-snr", "alpha", "sigma")
    attention = ("sharpness", "top10-share", "mass", "words")
    assert names == {
        *(f"latents-{name}" for name in latents),
        *(f"schedule-{name}" for name in schedule),
        *(f"attention-{name}" for name in attention),
        "timings",
        "token-steps",
    }


def test_drawings_are_well_formed_and_stand_alone(full_report: Path) -> None:
    for path in full_report.glob("*.svg"):
        root = ET.fromstring(path.read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.find("{http://www.w3.org/2000/svg}style") is not None, "coloured on its own"
        numbers = re.findall(r'(?:points|cx|cy|x1|y2|height)="([^"]*)"', path.read_text())
        assert numbers
        assert not any("nan" in n or "inf" in n for n in numbers)


def test_pictures_are_named_by_position_only(full_report: Path) -> None:
    thumbs = sorted(path.name for path in (full_report / "thumbs").iterdir())
    assert thumbs == [f"{i:06d}.webp" for i in range(20) if i != 5]
    maps = sorted(path.name for path in (full_report / "heat").iterdir())
    assert maps
    assert all(re.fullmatch(r"\d{6}(-\d\d)?\.png", name) for name in maps)


def test_small_images_stay_crisp_and_large_ones_link_to_a_larger_file(
    make_run: Callable[..., RunDirectory], full_report: Path, page: Outline
) -> None:
    tiles = [image for image in page.named("img") if (image["src"] or "").startswith("thumbs/")]
    assert len(tiles) == 19
    assert all(tile.get("class") == "crisp" for tile in tiles)
    folder = write_report(make_run(num_samples=2, side=600, probes=False)).parent
    large = outline(folder)
    assert all(image.get("class") is None for image in large.named("img"))
    with Image.open(folder / "thumbs/000000.webp") as small:
        assert max(small.size) == 256
    with Image.open(folder / "images/000000.webp") as big:
        assert max(big.size) == 600


def test_contact_sheets_can_be_opened(full_report: Path) -> None:
    for name in ("samples", "attention", "attention-steps"):
        with Image.open(full_report / f"{name}.png") as sheet:
            sheet.load()
            assert len(sheet.resize((64, 64)).getcolors(4096) or []) > 20, "not one flat colour"


def test_latents_that_lose_their_noise_are_a_warning_with_the_first_bad_step(
    make_run: Callable[..., RunDirectory], full_report: Path
) -> None:
    page = write_report(make_run(collapsed=True)).read_text()
    assert "From step 4 (log-SNR -4.00) on the latents hold less noise" in page
    assert "hold less noise" not in (full_report / "index.html").read_text()


def test_the_checks_of_the_schedule_stand_beside_it(
    make_run: Callable[..., RunDirectory], full_report: Path
) -> None:
    says = ("Betas are <odd>.", "Note: init_noise_sigma is 14.6, not 1.")
    run = make_run(num_samples=3, says=says)
    page = write_report(run).read_text(encoding="utf-8")
    assert '<p class="warning">⚠ Betas are &lt;odd&gt;.</p>' in page
    assert '<p class="note">Note: init_noise_sigma' in page
    older = (full_report / "index.html").read_text(encoding="utf-8")
    assert "found nothing suspicious" not in older, "a run from before has none, and says nothing"


def test_a_schedule_without_findings_says_that_it_was_checked(
    make_run: Callable[..., RunDirectory],
) -> None:
    page = write_report(make_run(num_samples=3, says=())).read_text(encoding="utf-8")
    assert "The checks of the schedule found nothing suspicious." in page

"""The frame of every page: hashes, inert data, and colours that can be told apart."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape

import pytest
from jinja2 import UndefinedError

from evaluator.report.frame import TABLES, asset, inline_json, render_page

HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "]]>", "a\u2028b\u2029c", "&lt;",
           "\x1b[31m", "'\"\\", "日本 🎈"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_data_in_the_page_says_the_same_and_cannot_end_its_element(text: str) -> None:
    written = inline_json({"prompt": text, text: [1, None]})
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {"prompt": text, text: [1, None]}


def test_data_without_a_word_in_json_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        inline_json([float("nan")])


def rendered(**changes: object) -> str:
    context = {"title": "A <title>", "titles": ["one"], "rows": [], "table": "t", "grids": []}
    return render_page("schedules.html.j2", **{"scripts": (TABLES,), **context, **changes})


def test_policy_names_the_script_and_the_style_that_are_there() -> None:
    page = rendered()
    for kind in ("script", "style"):
        content = page.partition(f"<{kind}>")[2].partition(f"</{kind}>")[0]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in unescape(page)
    assert "script-src 'none'" in unescape(rendered(scripts=()))
    assert "<script" not in rendered(scripts=())


def test_scripts_share_one_element_in_strict_mode() -> None:
    page = rendered(scripts=(TABLES, "gallery.js"))
    assert page.count("<script") == 1
    script = page.partition("<script>")[2].partition("</script>")[0]
    assert script.startswith('"use strict";\n{\n')


def test_texts_are_escaped_and_a_forgotten_one_is_an_error() -> None:
    assert "<title>A &lt;title&gt;</title>" in rendered()
    with pytest.raises(UndefinedError, match="rows"):
        render_page("schedules.html.j2", title="", titles=[], table="t", grids=[])


# -- contrast, as WCAG 2.2 computes it -------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def colours(css: str) -> dict[str, dict[str, str]]:
    """Scheme → name of the variable → colour."""
    blocks = re.findall(r":root\s*\{([^}]*)\}", css)
    light, dark = (dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block)) for block in blocks[:2])
    return {"light": light, "dark": dark}


def test_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_the_contrast_of_level_aa(scheme: str) -> None:
    found = colours(asset("frame.css"))[scheme]
    for ink in ("ink", "faint", "link", "care"):
        for ground in ("card", "ground"):
            assert contrast(found[ink], found[ground]) >= 4.5, (ink, ground)
    assert contrast(found["good"], found["good-ground"]) >= 4.5
    assert contrast(found["care"], found["care-ground"]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_can_be_told_from_their_ground(scheme: str) -> None:
    css = asset("chart.css")
    light, _, dark = css.partition("@media screen and (prefers-color-scheme: dark)")
    rules = light if scheme == "light" else dark
    ground = re.search(r"\.chart \{ background: (#\w{6})", rules)
    assert ground is not None
    for name in ("text", r"\.title"):
        ink = re.search(rf"\.chart {name} \{{ fill: (#\w{{6}})", rules)
        assert ink is not None
        assert contrast(ink[1], ground[1]) >= 4.5
    lines = re.findall(r"\.chart \.s\d \{ stroke: (#\w{6})", rules)
    assert len(lines) == 6
    for line in lines:
        assert contrast(line, ground[1]) >= 3.0, line

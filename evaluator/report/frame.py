"""The frame of every page: one template, one style, and a policy that lets nothing else in.

A page is a template that begins with `{% extends "frame.html.j2" %}` and fills its blocks:

- `main`, the sections; every page has it;
- `header`, what stands between the subtitle and the links to the sections;
- `data`, tables for the page's scripts: `{{ rows | json }}` in a `<script
  type="application/json">` is text that no browser executes, whatever a prompt says;
- `skip` and `footer`, a few words.

A `<table class="sortable">` sorts by its headings and an `<input data-filters="the table's id">`
filters its rows where the page asks for `tables.js`. Numbers sort by `data-value` of their cell;
`data-first="descending"` on a heading says which way the first click goes, `data-fixed` that it
does not sort. `paper.js` prints a table that is wider than paper in pieces, and each repeats the
columns that name a row: up to its heading, or `data-names` of them.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from evaluator import __version__
from evaluator.report.text import number

GENERATOR = "evaluator report"
"""How a report is told from other folders when it is to be replaced."""

TABLES = "tables.js"
"""The script of tables that sort and filter."""

PAPER = "paper.js"
"""The script that prints a table wider than paper in pieces."""

PAPER_STYLE = "paper.css"

_INERT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Drawing(NamedTuple):
    """A figure that stands in the page and, where `file` names one, in a file beside it."""

    svg: Markup
    file: str
    description: str


def render_page(
    template: str, *, scripts: Sequence[str] = (), styles: Sequence[str] = (), **context: Any
) -> str:
    """A page as HTML that works from `file://` and loads nothing but pictures beside it.

    `template`, `scripts` and `styles` name files of this package; the styles of the frame, of
    charts and of paper are always there. `context` is what the template shows, escaped: `title`
    always, and for the frame `subtitle`, `sections` (anchor and name) and `generator` (what tells
    such a page from others), which may be left out. A name that the
    template uses and `context` lacks is an error. The scripts share one element, each in a block
    of its own, in strict mode.
    """
    style = "".join(asset(name) for name in ("frame.css", "chart.css", *styles, PAPER_STYLE))
    blocks = "".join(f"{{\n{asset(name)}}}\n" for name in scripts)
    script = f'"use strict";\n{blocks}' if scripts else ""
    shown: Mapping[str, Any] = {
        "generator": GENERATOR,
        "subtitle": "",
        "sections": (),
        **context,
        "policy": policy(style, script or None),
        "version": __version__,
        "style": Markup(style),  # noqa: S704  (files of this package)
        "script": Markup(script),  # noqa: S704
    }
    return _environment().get_template(template).render(shown)


def _environment() -> Environment:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, loader=FunctionLoader(asset)
    )
    environment.filters["number"] = number
    environment.filters["json"] = inline_json
    return environment


def asset(name: str) -> str:
    """A file of this package."""
    return resources.files("evaluator.report").joinpath(name).read_text(encoding="utf-8")


def chart_rules() -> str:
    """Style of charts, in the page and in files of their own."""
    return asset("chart.css")


def inline_json(value: object) -> Markup:
    """`value` as JSON that may stand inside a `<script type="application/json">`.

    No text in it can end the element or begin a comment: `<`, `>`, `&` and the line separators
    that JavaScript knows are written as escapes. Raises ValueError for NaN and infinity: JSON has
    no words for them.
    """
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _INERT.items():
        written = written.replace(character, escape)
    return Markup(written)  # noqa: S704  (nothing in it is markup now)


def policy(style: str, script: str | None) -> str:
    """Content security policy: these two texts and pictures beside the page; nothing else."""
    scripts = "'none'" if script is None else _hash(script)
    return (
        "default-src 'none'; img-src 'self' data: file:; "
        f"style-src {_hash(style)}; script-src {scripts}; base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

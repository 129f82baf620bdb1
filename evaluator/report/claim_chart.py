"""The claims side by side: each effect with its interval, against zero and shuffled tokens."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

from evaluator.report.claims import ClaimsFound, Told
from evaluator.report.svg import canvas, element, text
from evaluator.report.text import number

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 900.0, 24.0, 24.0, 70.0, 44.0
TITLE = "Three claims about attention"


def draw_claims(found: ClaimsFound) -> ET.Element:
    """One line a claim, each on a scale of its own; right of zero the claim holds."""
    height = _TOP + _ROW * len(found.claims) + 4
    said = "; ".join(f"{told.says}: {_numbers(told)}. {told.words}" for told in found.claims)
    svg = canvas("claims-chart", TITLE, said, _WIDTH, height)
    text(svg, 8, 18, TITLE, kind="title")
    element(svg, "circle", "dot s0", cx=_WIDTH - 430, cy=14, r=4)
    text(svg, _WIDTH - 420, 18, "effect and 95 % interval over prompts")
    _diamond(svg, _WIDTH - 192, 14)
    text(svg, _WIDTH - 182, 18, "mean effect of shuffled tokens")
    for i, told in enumerate(found.claims):
        _row(svg, told, _TOP + i * _ROW)
    return svg


def _numbers(told: Told) -> str:
    if told.claim is None:
        return "no number"
    claim = told.claim
    return f"{number(claim.effect)} ({number(claim.low)} to {number(claim.high)})"


def _row(svg: ET.Element, told: Told, y: float) -> None:
    text(svg, 8, y + 8, told.says, kind="title")
    text(svg, _WIDTH - _RIGHT, y + 8, told.verdict, kind="title", anchor="end")
    middle, left, right = y + 28, _LEFT, _WIDTH - _RIGHT
    if told.claim is None:
        text(svg, left, middle + 4, told.words)
        return
    claim = told.claim
    low, high = (
        (claim.low, claim.high) if math.isfinite(claim.low) else (claim.effect, claim.effect)
    )
    reach = 1.25 * max(map(abs, (low, high, claim.effect, claim.null))) or 1.0

    def place(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (right - left)

    element(svg, "line", "axis", x1=left, x2=right, y1=middle + 14, y2=middle + 14)
    element(svg, "line", "guide", x1=place(0), x2=place(0), y1=middle - 12, y2=middle + 18)
    text(svg, place(0), middle + 30, "0", anchor="middle")
    text(svg, left, middle + 30, f"← the opposite ({number(-reach, places=_places(reach))})")
    end = f"({number(reach, places=_places(reach))}) the claim →"
    text(svg, right, middle + 30, end, anchor="end")
    _diamond(svg, place(claim.null), middle)
    element(svg, "line", "line s0", x1=place(low), x2=place(high), y1=middle, y2=middle)
    for edge in (low, high):
        x = place(edge)
        element(svg, "line", "line s0", x1=x, x2=x, y1=middle - 5, y2=middle + 5)
    dot = element(svg, "circle", "dot s0", cx=place(claim.effect), cy=middle, r=4.5)
    says = f"{told.unit}: {_numbers(told)}, {claim.num_prompts} prompts, p = {claim.p_value:.3g}"
    ET.SubElement(dot, "title").text = says


def _places(reach: float) -> int:
    return max(0, 1 - math.floor(math.log10(reach)))


def _diamond(svg: ET.Element, x: float, y: float) -> None:
    points = f"{x:.2f},{y - 6:.2f} {x + 5:.2f},{y:.2f} {x:.2f},{y + 6:.2f} {x - 5:.2f},{y:.2f}"
    element(svg, "polygon", "hollow", points=points)

"""A distributed batch evaluator for diffusion models.

`open_run(path)` reads a run from Python; `compare(a, b)` says what differs between two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluator.comparison.calling import compare as compare
    from evaluator.runs import Run as Run
    from evaluator.runs import open_run as open_run

__version__ = "0.1.0"

_OFFERED = {
    "open_run": "evaluator.runs",
    "Run": "evaluator.runs",
    "compare": "evaluator.comparison",
}
"""Name → the module that has it, imported when it is asked for: importing `evaluator` is light."""


def __getattr__(name: str) -> Any:
    if name not in _OFFERED:
        raise AttributeError(f"module 'evaluator' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_OFFERED[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_OFFERED})

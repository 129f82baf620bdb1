"""What these tests share: small runs, and files as they were when last looked at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small_runs import hostile_run as hostile_run
from tests.small_runs import small_run as small_run

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compare a text with the file kept for it; WRITE_GOLDEN=1 keeps a new one, to be looked at."""

    def check(name: str, text: str) -> None:
        if os.environ.get("WRITE_GOLDEN"):
            (GOLDEN / name).write_text(text)
        assert text == (GOLDEN / name).read_text(), name

    return check

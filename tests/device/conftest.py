"""The pretend device, for one test at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.device.pretend import Watch, pretend_device


@pytest.fixture
def watch() -> Iterator[Watch]:
    """What happens on the device, which is there while the test runs."""
    with pretend_device() as seen:
        yield seen

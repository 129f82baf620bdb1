"""Replace a method on one object and put it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(target: Any, name: str, value: Any) -> Iterator[None]:
    """While inside, `target.name` is `value`; afterwards it is exactly what it was.

    Writes to the instance's own dictionary: pipelines and modules intercept `setattr`, and an
    attribute that came from the class must not stay behind on the instance.
    """
    own = vars(target)
    had = name in own
    before = own.get(name)
    own[name] = value
    try:
        yield
    finally:
        if had:
            own[name] = before
        else:
            own.pop(name, None)

"""What every test shares: no network, one thread, a cache of its own."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.stores import bucket as bucket
from tests.stores import fresh_clients as fresh_clients
from tests.stores import memory as memory
from tests.stores import s3_environment as s3_environment
from tests.stores import s3_server as s3_server
from tests.stores import store as store
from tests.stores import upload as upload

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WDS_SECURE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples every time, however slow the machine; `--hypothesis-profile=new` draws others.
for name, same in (("same", True), ("new", False)):
    settings.register_profile(
        name, derandomize=same, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("same")

SECONDS_TO_LEAVE = 300
"""After the last test: a thread or a process that is waited for for ever ends nothing by itself."""


def pytest_unconfigure() -> None:
    """Leave in any case, and with the stacks of what did not let this process end."""
    faulthandler.dump_traceback_later(SECONDS_TO_LEAVE, exit=True, file=sys.__stderr__)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs and references of one test are not another's."""
    monkeypatch.setenv("EVALUATOR_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """The number of threads changes bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    """Four captions of the digits world."""
    path = tmp_path / "prompts.txt"
    path.write_text(
        "a red seven on a black background\n"
        "a green two on a black background\n"
        "a blue five on a black background\n"
        "a yellow zero on a black background\n"
    )
    return path


class Ended:
    """How a call of the command line ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the command line in this process; a traceback is a failure."""
    from evaluator.cli import main

    def run(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Ended(int(left.value.code or 0), captured.out, captured.err)

    return run

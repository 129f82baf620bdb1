import subprocess
import sys

import pytest

import evaluator.probes


def test_the_room_opens_without_torch():
    heavy = "[name for name in ('torch', 'diffusers') if name in sys.modules]"
    code = f"import sys, evaluator.probes; print({heavy})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names_are_found_when_used():
    for name in evaluator.probes.__all__:
        assert getattr(evaluator.probes, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = evaluator.probes.nothing

"""What importing loads, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys, bandit
assert "torch" not in sys.modules, "bandit loads torch"
import bandit.llm
heavy = {"transformers", "datasets", "peft", "accelerate", "pyarrow"} & set(sys.modules)
assert not heavy, heavy
"""


def test_heavy_libraries_are_loaded_on_use():
    subprocess.run([sys.executable, "-W", "error", "-c", CODE], check=True)


def test_every_export_exists():
    import bandit.llm

    for name in bandit.llm.__all__:
        assert getattr(bandit.llm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'SequenceTrianer'"):
        _ = bandit.llm.SequenceTrianer

"""Shared settings of the test-suite."""

from __future__ import annotations

import os

import hypothesis

# The same examples at every run, so that a failure is a fact about the code and not about the day.
# ``HYPOTHESIS_PROFILE=explore`` looks for new ones.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=40, database=None
)
hypothesis.settings.register_profile(
    "explore", deadline=None, max_examples=1000, database=None, print_blob=True
)
hypothesis.settings.register_profile(
    "quick", derandomize=True, deadline=None, max_examples=8, database=None
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

"""Shared settings of the test-suite."""

from __future__ import annotations

import os

import hypothesis

# The same examples at every run, so that a failure is a fact about the code and not about the day.
# ``HYPOTHESIS_PROFILE=explore`` looks for new ones.
# Nor about the machine: no example, and no drawing of one, is too slow.
COMMON = {
    "deadline": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow],
    "database": None,
}
PROFILES = {
    "repeatable": {"derandomize": True, "max_examples": 40},
    "explore": {"max_examples": 1000, "print_blob": True},
    "quick": {"derandomize": True, "max_examples": 8},
}
for name, own in PROFILES.items():
    hypothesis.settings.register_profile(name, **COMMON, **own)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

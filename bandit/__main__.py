"""``python -m bandit``."""

from __future__ import annotations

import sys

from bandit.cli import main

if __name__ == "__main__":
    sys.exit(main())

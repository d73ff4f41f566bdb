"""``python -m bandit.llm``."""

import sys

from bandit.llm.commands import main

if __name__ == "__main__":
    sys.exit(main())

"""The command `vsml`, by `python -m vsml`."""

import sys

from vsml.launching.console import main

if __name__ == "__main__":
    sys.exit(main())

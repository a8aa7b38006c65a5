"""Rules on the command line: `python -m vsml.rules show | check | run | step | survey`."""

import sys

from vsml.launching.rules import main

if __name__ == "__main__":
    sys.exit(main())

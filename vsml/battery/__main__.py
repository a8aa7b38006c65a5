"""The battery on the command line: `python -m vsml.battery LEARNER ...`."""

import sys

from vsml.launching.battery import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m vsml.laws`: the command line of laws."""

import sys

from vsml.launching.laws import main

if __name__ == "__main__":
    sys.exit(main())

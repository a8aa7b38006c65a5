"""The command line: read the configuration, join the other ranks, and do what `call` says.

python launch.py --config_files configs/quickstart.yaml --config training.iterations=100
"""

import sys

from vsml.launching.run import main
from vsml.system.terminal import unfailing_output

if __name__ == "__main__":
    with unfailing_output():
        sys.exit(main())

"""`python -m dockd`: the command line, also where the script is not on the path."""

import sys

from dockd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

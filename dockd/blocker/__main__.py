"""The write blocker's program: `python -I -m dockd.blocker`, a connection as its standard input."""

import sys

from dockd.blocker.serve import main

if __name__ == "__main__":
    sys.exit(main())

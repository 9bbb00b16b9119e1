"""The write blocker's program: `python -I -m dockd.blocker CONFIG`, a connection as its standard input.

CONFIG is the station's configuration, of which it reads the bays' ports; by default where the unit has it.
"""

import sys
from pathlib import Path

from dockd.blocker.allowed import CONFIG
from dockd.blocker.serve import main
from dockd.blocker.verbs import Machine

if __name__ == "__main__":
    sys.exit(main(Machine(config=Path(sys.argv[1]) if len(sys.argv) > 1 else CONFIG)))

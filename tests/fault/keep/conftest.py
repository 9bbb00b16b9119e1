"""The unit tests' journal kit, here too."""

import runpy
from pathlib import Path

kit = runpy.run_path(str(Path(__file__).parents[2] / "unit" / "keep" / "conftest.py"))["kit"]

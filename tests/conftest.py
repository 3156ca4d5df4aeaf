"""Shared by all tests: the folder of the sample table and helpers is importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

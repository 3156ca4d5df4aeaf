"""Lets Python that is started in a checkout find ``irconv.passes`` and ``irconv.backends``.

They lie beside this folder there, and inside it where irconv is installed.  Without this, an ``import irconv`` in the folder of
the checkout would find half of a package: this folder comes before the installed one.
"""

import sys
from pathlib import Path

_HERE = Path(__file__).parent
if not (_HERE / "passes").is_dir():
    sys.modules["irconv"].__path__.append(str(_HERE.parent))

"""Entry point: `python src/main.py -m GTC -d baby`; see --help."""

from __future__ import annotations

import sys
from pathlib import Path

# As a script, Python puts this folder on the path itself; as an installed command it does not.
if str(Path(__file__).resolve().parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())

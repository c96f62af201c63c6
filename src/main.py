"""Entry point: `python src/main.py -m GTC -d baby`; see --help."""

from __future__ import annotations

import sys

from cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())

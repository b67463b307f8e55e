"""``python -m fastrna``: the command line."""

import sys

from fastrna.cli import main

if __name__ == "__main__":
    sys.exit(main())

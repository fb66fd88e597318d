"""``python -m contrastzsd`` is the command ``contrastzsd``."""

import sys

from contrastzsd.cli import main

if __name__ == "__main__":
    sys.exit(main())

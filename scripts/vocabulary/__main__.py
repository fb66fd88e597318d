"""``python -m scripts.vocabulary``."""

import sys

from scripts.vocabulary.build import main

sys.exit(main())

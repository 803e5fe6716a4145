"""``python -m tavus_provider.sandbox``."""

import sys

from tavus_provider.sandbox.server import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m tavus_provider``: see ``cli.py``."""

import logging
import sys

from tavus_provider.cli import main

if __name__ == "__main__":
    logging.disable(logging.WARNING)  # of Airflow and what it brings: it would stand between our lines
    sys.exit(main())

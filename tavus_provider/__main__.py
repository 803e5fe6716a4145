"""``python -m tavus_provider``: see ``cli.py``."""

import logging
import sys

from tavus_provider.cli.commands import main

if __name__ == "__main__":
    # What Airflow and its libraries have to say of themselves would stand between our lines.
    logging.disable(logging.WARNING)
    sys.exit(main())

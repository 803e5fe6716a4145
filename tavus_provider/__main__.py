"""``python -m tavus_provider``: see :mod:`tavus_provider.cli`."""

import logging
import sys

from tavus_provider.cli.main import main

if __name__ == "__main__":
    # Log lines of Airflow and its libraries would be mixed with the output of the command.
    logging.disable(logging.WARNING)
    sys.exit(main())

"""``python -m tavus_provider``: see ``cli.py``."""

import logging
import sys
import warnings

from tavus_provider.cli import main

if __name__ == "__main__":
    # What Airflow and its libraries have to say of themselves would stand between our lines.
    logging.disable(logging.WARNING)
    if not sys.warnoptions:
        warnings.showwarning = lambda *_, **__: None  # a filter would be undone by Airflow 3.1
    sys.exit(main())

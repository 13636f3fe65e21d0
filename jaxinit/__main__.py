"""``python -m jaxinit``: the command line."""

import sys

from jaxinit.cli import main

sys.exit(main())

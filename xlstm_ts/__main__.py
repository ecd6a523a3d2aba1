"""`python -m xlstm_ts`: the command line."""

import sys

from xlstm_ts.cli import main

sys.exit(main())

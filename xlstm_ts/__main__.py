"""`python -m xlstm_ts`: the command line."""

import sys

try:
    from xlstm_ts.cli import main
except KeyboardInterrupt:  # before there is anything to end
    sys.exit(130)

sys.exit(main())

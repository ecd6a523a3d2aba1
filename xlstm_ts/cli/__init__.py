"""The command line: `xlstm-ts`, or `python -m xlstm_ts`."""

from xlstm_ts.cli.app import main

__all__ = ["main"]

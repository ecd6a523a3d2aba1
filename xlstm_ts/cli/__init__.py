"""The command line: `xlstm-ts`, or `python -m xlstm_ts`."""

from __future__ import annotations

from collections.abc import Sequence

from xlstm_ts.cli.stopping import ended_by_interrupt

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code, with the reason on stderr where it is not 0."""
    with ended_by_interrupt():
        from xlstm_ts.cli.app import run
    return run(arguments)

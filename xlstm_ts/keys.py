"""The keys of a panel: which rows belong to which series."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from xlstm_ts.exceptions import SeriesError


def split_series(frame: pd.DataFrame, *, name: str) -> dict[Hashable, pd.DataFrame]:
    """Return the rows of each series, with the time alone as index."""
    if not isinstance(frame.index, pd.MultiIndex):
        return {None: frame}
    _check_keys(frame.index, name=name)
    *others, last = (level.dtype.kind for level in frame.index.levels)
    if last not in "Mui" and "M" in others:
        raise SeriesError(
            f"`{name}` has the time in level {others.index('M')} of its index; make it the last "
            "one: y.reorder_levels(...)."
        )
    levels: Any = list(range(frame.index.nlevels - 1))
    groups = frame.groupby(level=levels if len(levels) > 1 else 0, sort=False)
    return {key: part.droplevel(levels) for key, part in groups}


def _check_keys(index: pd.MultiIndex, *, name: str) -> None:
    """Refuse keys that would be dropped or taken for several."""
    for number, level in enumerate(index.levels[:-1]):
        unnamed = np.asarray(index.get_level_values(number).isna())
        if unnamed.any():
            raise SeriesError(
                f"`{name}` has no key at position {int(unnamed.argmax())}; name the series."
            )
        odd = [key for key in level if isinstance(key, tuple | bool | np.bool_)]
        if odd:
            raise SeriesError(
                f"`{name}` has the key {odd[0]!r} of a series; use text or integers, and a level "
                "of the index for each part of a key."
            )

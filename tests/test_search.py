"""scikit-learn's searches take a forecaster and a series as they are."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, ParameterGrid, TimeSeriesSplit

from tests.conftest import ARRAY, HOURLY, small

GRID = {"blocks": ["m", "s"]}
KINDS = {
    "1-D": ARRAY,
    "2-D": np.stack([ARRAY, ARRAY + 5], 1),
    "series": pd.Series(ARRAY, HOURLY),
    "bare index": pd.Series(ARRAY, pd.DatetimeIndex(HOURLY, freq=None)),
    "frame": pd.DataFrame({"a": ARRAY, "b": ARRAY * 100}, index=HOURLY),
}


@pytest.mark.parametrize("kind", KINDS)
def test_grid_search_over_time(kind: str) -> None:
    y, splits = KINDS[kind], TimeSeriesSplit(2)
    forecaster = small(context_length=8)
    search = GridSearchCV(forecaster, GRID, cv=splits, error_score="raise").fit(y)
    # By hand: in each split, fit on what came before and score what came next.
    for i, params in enumerate(ParameterGrid(GRID)):
        assert search.cv_results_["params"][i] == params
        for fold, (before, after) in enumerate(splits.split(y)):
            first, last = before[-1] + 1, after[-1] + 1
            known = y.iloc[:first] if hasattr(y, "iloc") else y[:first]
            next_ = y.iloc[first:last] if hasattr(y, "iloc") else y[first:last]
            score = clone(forecaster).set_params(**params).fit(known).score(next_)
            assert search.cv_results_[f"split{fold}_test_score"][i] == pytest.approx(score)
    best = search.best_estimator_
    np.testing.assert_array_equal(best.predict(), search.predict(y))
    assert type(best.predict()) is type(y)

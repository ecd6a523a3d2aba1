"""The estimator keeps scikit-learn's contract and gives back what it was given, continued."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

from xlstm_ts import XLSTMForecaster, persistence
from xlstm_ts.exceptions import SeriesError

RNG = np.random.default_rng(0)
ARRAY = np.sin(np.arange(160) * np.pi / 4) + 0.1 * RNG.standard_normal(160)


def small(**changes: object) -> XLSTMForecaster:
    options = {
        "horizon": 4, "patch_length": 2, "context_length": 16, "d_model": 8, "n_heads": 2,
        "max_steps": 3, "random_state": 0,
    }  # fmt: skip
    return XLSTMForecaster(**{**options, **changes})


HOURLY = pd.date_range("2024-03-29", periods=160, freq="h", tz="Europe/Rome", name="time")
SERIES = {
    "1-D": ARRAY,
    "2-D": np.stack([ARRAY, ARRAY + 5], 1),
    "series": pd.Series(ARRAY, HOURLY, name="load"),
    "periods": pd.Series(ARRAY, pd.period_range("2020", periods=160, freq="D")),
    "frame": pd.DataFrame({"a": ARRAY, 3: ARRAY * 100}, index=HOURLY),
}


@pytest.mark.parametrize("kind", SERIES)
def test_predicts_in_kind_and_survives_its_file(kind: str, tmp_path: Path) -> None:
    y = SERIES[kind]
    forecaster = small().fit(y)
    forecast, quantiles = forecaster.predict(), forecaster.predict_quantiles()
    assert type(forecast) is type(y)
    assert forecast.shape == (4, *np.shape(y)[1:])
    levels = np.asarray(quantiles).reshape(4, -1, 3)
    assert (np.diff(levels, axis=-1) >= 0).all()
    np.testing.assert_array_equal(levels[..., 1], np.asarray(forecast).reshape(4, -1))
    if isinstance(y, pd.Series | pd.DataFrame):
        assert forecast.index[0] == y.index[-1] + y.index.freq
    forecaster.save(tmp_path / "saved.npz")
    loaded = XLSTMForecaster.load(tmp_path / "saved.npz")
    again = loaded.predict()
    np.testing.assert_array_equal(np.asarray(again), np.asarray(forecast))
    if isinstance(y, pd.Series | pd.DataFrame):
        assert again.index.equals(forecast.index)
        assert again.index.name == forecast.index.name
    assert loaded.get_params() == forecaster.get_params()
    assert isinstance(np.asarray(loaded.predict(y)), np.ndarray)


def test_numpy_parameters_are_saved(tmp_path: Path) -> None:
    forecaster = small(horizon=np.int64(4), quantiles=np.array([0.2, 0.5])).fit(ARRAY)
    forecaster.save(tmp_path / "saved.npz")
    loaded = XLSTMForecaster.load(tmp_path / "saved.npz")
    np.testing.assert_array_equal(loaded.predict(), forecaster.predict())


def test_a_silent_tail_chooses_no_weights() -> None:
    y = ARRAY.copy()
    y[-16:] = np.nan
    forecaster = small().fit(y)
    assert math.isnan(forecaster.history_[-1].validation_loss)


def test_new_context_needs_no_training() -> None:
    forecaster = small().fit(SERIES["series"])
    weights = {name: part.clone() for name, part in forecaster.model_.state_dict().items()}
    at_the_end = forecaster.predict(SERIES["series"])
    pd.testing.assert_series_equal(at_the_end, forecaster.predict())
    other = forecaster.predict(ARRAY[:5] + 1000)
    assert other.shape == (4,)
    assert np.abs(other - 1000).max() < 100
    assert all(torch.equal(part, weights[n]) for n, part in forecaster.model_.state_dict().items())


def test_learns_a_season() -> None:
    time = np.arange(600)
    y = np.sin(time * np.pi / 12) + 0.05 * RNG.standard_normal(600)
    forecaster = XLSTMForecaster(
        12, context_length=96, d_model=16, max_steps=80, dropout=0.0, random_state=0
    ).fit(y[:500])
    assert forecaster.season_length_ == 24
    first, last = forecaster.history_[0], forecaster.history_[-1]
    assert last.loss < 0.5 * first.loss
    error = np.abs(forecaster.predict() - y[500:512]).mean()
    assert error < 0.5 * np.abs(y[500:512]).mean()


def test_score_is_the_skill_over_seasonal_naive(
    fitted: XLSTMForecaster, sine: pd.DataFrame
) -> None:
    values, origins = sine.to_numpy(), np.arange(600, 700 - 12 + 1, 12)
    forecasts = np.stack([fitted.predict(sine.iloc[:origin]).to_numpy() for origin in origins])
    truth = np.stack([values[origin : origin + 12] for origin in origins])
    naive = np.stack([values[origin - 24 : origin - 12] for origin in origins])
    there = ~np.isnan(naive + truth)
    ours, theirs = (
        np.where(there, np.abs(guess - truth), 0).sum((0, 1)) for guess in (forecasts, naive)
    )
    # The times of this part go on from those of the training series, so no context is given.
    assert fitted.score(sine.iloc[600:]) == pytest.approx(np.mean(1 - ours / theirs), rel=1e-6)
    with pytest.raises(SeriesError, match="too short to score"):
        fitted.score(sine.iloc[650:])


def test_clone_and_search() -> None:
    forecaster = small(d_model=12)
    assert clone(forecaster).get_params() == forecaster.get_params()
    search = GridSearchCV(
        small(context_length=8), {"blocks": ["m", "s"]}, cv=TimeSeriesSplit(2), error_score="raise"
    ).fit(ARRAY)
    assert search.best_params_["blocks"] in ("m", "s")
    assert search.best_estimator_.predict().shape == (4,)


def test_same_seed_same_forecast_and_no_trace() -> None:
    before = torch.random.get_rng_state()
    one, same = small().fit(ARRAY), small().fit(ARRAY)
    other = small(random_state=1).fit(ARRAY)
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(one.predict(), same.predict())
    assert not np.array_equal(one.predict(), other.predict())
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).predict(), one.predict())


def test_missing_readings_and_a_constant_channel() -> None:
    y = np.stack([ARRAY, np.full(160, 7.0)], 1)
    y[RNG.random(y.shape) < 0.3] = np.nan
    forecaster = small().fit(y)
    assert np.isfinite(forecaster.predict_quantiles()).all()
    assert all(math.isfinite(record.loss) for record in forecaster.history_)


def test_a_high_level_keeps_its_digits() -> None:
    low, high = (small().fit(ARRAY + level).predict() for level in (0, 2.0**30))
    np.testing.assert_allclose(high - 2.0**30, low, atol=1e-4)


def test_stops_early_and_keeps_the_best() -> None:
    forecaster = small(max_steps=200, learning_rate=0.3, patience=1, dropout=0.0).fit(ARRAY)
    losses = [record.validation_loss for record in forecaster.history_]
    assert len(losses) < 10
    assert losses.index(min(losses)) == len(losses) - 2
    without_tail = small(validation_fraction=0).fit(ARRAY)
    assert math.isnan(without_tail.history_[-1].validation_loss)


def test_progress_shows_both_losses(capsys: pytest.CaptureFixture[str]) -> None:
    small().fit(ARRAY)
    assert capsys.readouterr().err == ""
    small(verbose=1).fit(ARRAY)
    shown = capsys.readouterr().err
    assert "loss=" in shown
    assert "validation=" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "`horizon` must be at least 1, got 0"),
        ({"quantiles": (0.5, 0.1)}, "`quantiles` must increase"),
        ({"quantiles": (0.0, 0.5)}, "`quantiles` must increase inside"),
        ({"blocks": "mx"}, "`blocks` must be a word"),
        ({"n_heads": 3}, "`n_heads` must divide"),
        ({"channels": "both"}, "`channels` must be"),
        ({"context_length": 1}, "`context_length` must be at least"),
        ({"max_steps": 0}, "`max_steps` must be at least 1"),
        ({"validation_fraction": 1.0}, "`validation_fraction` must be in"),
        ({"dropout": 1.0}, "`dropout` must be in"),
        ({"context_length": 150}, "too short: 160 readings, at least 170 are needed"),
    ],
)
def test_wrong_parameters_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes).fit(ARRAY)


def test_other_channels_are_refused() -> None:
    forecaster = small().fit(SERIES["frame"])
    with pytest.raises(SeriesError, match="1 channels, the forecaster was trained on 2: a, 3"):
        forecaster.predict(ARRAY)
    with pytest.raises(SeriesError, match="rename or reorder"):
        forecaster.predict(SERIES["frame"][[3, "a"]])
    with pytest.raises(NotFittedError):
        small().predict()


def test_files_are_whole_and_foreign_ones_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forecaster, path = small().fit(ARRAY), tmp_path / "saved.npz"
    forecaster.save(path)
    whole = path.read_bytes()
    monkeypatch.setattr(persistence.np, "savez", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        forecaster.save(path)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]
    for damaged in (whole[:100], b"text", b""):
        path.write_bytes(damaged)
        with pytest.raises(SeriesError, match="not a saved forecaster"):
            XLSTMForecaster.load(path)
    monkeypatch.undo()
    header = json.dumps({"format": persistence.FORMAT, "version": 99})
    np.savez(path, header=np.array(header))
    with pytest.raises(SeriesError, match="update xlstm-ts"):
        XLSTMForecaster.load(path)

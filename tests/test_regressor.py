"""A soft sensor: what is told at a row comes from the rows of X up to it, and never from y."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import TimeSeriesSplit, cross_val_score

from xlstm_ts import XLSTMRegressor, backtest, regressor
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.export.onnx import export_onnx

Floats = NDArray[np.float64]
N_TRAIN = 1200


def make_plant(length: int = 1800) -> tuple[Floats, Floats]:
    """Return three inputs and what follows from them: a leaky integral, and a product."""
    inputs = np.random.default_rng(0).standard_normal((length, 3))
    level, levels = 0.0, []
    for flow in inputs[:, 0]:
        level = 0.9 * level + 0.4 * flow
        levels.append(level)
    return 5 + inputs * [1, 20, 0.1], 100 + 10 * (levels + 0.5 * inputs[:, 1] * inputs[:, 2])


X, Y = make_plant()
HELD_OUT = slice(N_TRAIN, None)


def small(**changes: object) -> XLSTMRegressor:
    """Return a regressor that learns the plant in seconds."""
    options = {
        "context_length": 64, "d_model": 32, "n_heads": 2, "blocks": "m", "dropout": 0.0,
        "max_steps": 150, "batch_size": 8, "learning_rate": 0.01, "random_state": 0,
    }  # fmt: skip
    return XLSTMRegressor(**{**options, **changes})


def tiny(**changes: object) -> XLSTMRegressor:
    """Return a regressor that is fitted in no time."""
    return small(**{"context_length": 8, "d_model": 8, "max_steps": 3, **changes})


@pytest.fixture(scope="module")
def fitted() -> XLSTMRegressor:
    return small().fit(X[:N_TRAIN], Y[:N_TRAIN])


def test_tells_what_no_single_row_tells(fitted: XLSTMRegressor) -> None:
    linear = LinearRegression().fit(X[:N_TRAIN], Y[:N_TRAIN]).score(X[HELD_OUT], Y[HELD_OUT])
    assert fitted.score(X[HELD_OUT], Y[HELD_OUT]) > max(0.85, linear + 0.5)


def test_rows_to_come_change_nothing(fitted: XLSTMRegressor) -> None:
    other = X[HELD_OUT].copy()
    other[300:] = X[300:600][::-1]
    told, again = fitted.predict(X[HELD_OUT]), fitted.predict(other)
    np.testing.assert_allclose(again[:300], told[:300], rtol=0, atol=1e-4)
    assert not np.allclose(again[300:], told[300:], atol=1)
    np.testing.assert_allclose(fitted.predict(other[:300]), told[:300], rtol=0, atol=1e-4)


@pytest.mark.parametrize("piece", [1, 7, 64, 500])
def test_pieces_are_one_run(
    piece: int, fitted: XLSTMRegressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted.predict(X[:200])
    monkeypatch.setattr(regressor, "PIECE", piece)
    np.testing.assert_allclose(fitted.predict(X[:200]), whole, rtol=0, atol=1e-3)


def test_one_row_at_a_time_is_the_same(fitted: XLSTMRegressor) -> None:
    model, told = fitted.model_, []
    state, hidden = model.initial_state(), torch.full((1, 1), torch.nan, dtype=torch.float64)
    with torch.inference_mode():
        for row in torch.as_tensor(X[:100]):
            forecast, state = model.step(hidden, state, row[None])
            told.append(forecast.item())
    np.testing.assert_allclose(told, fitted.predict(X[:100]), rtol=0, atol=1e-3)


def test_learns_from_what_is_there() -> None:
    rng = np.random.default_rng(1)
    inputs, y = X.copy(), Y.copy()
    inputs[rng.random(X.shape) < 0.05] = np.nan
    inputs[100:120] = np.nan
    y[rng.random(len(y)) < 0.7] = np.nan  # a laboratory takes a sample now and then
    learned = small().fit(inputs[:N_TRAIN], y[:N_TRAIN])
    assert np.isfinite(learned.predict(inputs)).all()
    told = learned.predict(inputs[HELD_OUT])
    assert r2_score(Y[HELD_OUT], told) > 0.6
    known = ~np.isnan(y[HELD_OUT])
    assert learned.score(inputs[HELD_OUT], y[HELD_OUT]) == pytest.approx(
        r2_score(y[HELD_OUT][known], told[known])
    )


def test_units_do_not_matter() -> None:
    told = tiny().fit(X[:100], Y[:100]).predict(X)
    scaled = tiny().fit(1e3 - 7 * X[:100], 1e4 * Y[:100] - 3).predict(1e3 - 7 * X)
    other_sign = tiny().fit(1e3 + 7 * X[:100], 1e4 * Y[:100] - 3).predict(1e3 + 7 * X)
    np.testing.assert_allclose((other_sign + 3) / 1e4, told, rtol=0, atol=1e-3)
    assert not np.allclose((scaled + 3) / 1e4, told, atol=1e-3)


@pytest.mark.parametrize("shape", [(), (1,), (2,)])
def test_outputs_keep_their_shape(shape: tuple[int, ...]) -> None:
    y = np.stack([Y, -X[:, 0]], 1)[:, : np.prod(shape, dtype=int)].reshape(len(Y), *shape)
    learned = tiny().fit(X[:100], y[:100])
    told = learned.predict(X[100:150])
    assert told.shape == (50, *shape)
    assert told.dtype == np.float64
    assert learned.score(X[100:150], y[100:150]) == pytest.approx(r2_score(y[100:150], told))


def test_takes_frames() -> None:
    index = pd.date_range("2024-01-01", periods=120, freq="min")
    frame = pd.DataFrame(X[:120], index=index, columns=["flow", "heat", "feed"])
    learned = tiny().fit(frame, pd.Series(Y[:120], index=index))
    assert learned.feature_names_in_.tolist() == ["flow", "heat", "feed"]
    np.testing.assert_array_equal(
        learned.predict(frame), tiny().fit(X[:120], Y[:120]).predict(X[:120])
    )
    with pytest.raises(ValueError, match="feature names"):
        learned.predict(frame[["heat", "flow", "feed"]])


def test_is_searched_with_splits_in_time() -> None:
    scores = cross_val_score(tiny(), X[:200], Y[:200], cv=TimeSeriesSplit(2))
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("wanted", "rows", "context"),
    [("auto", 2000, 512), ("auto", 300, 135), ("auto", 100, 64), ("auto", 20, 18), (500, 50, 45)],
)
def test_context_is_what_the_rows_allow(wanted: int | str, rows: int, context: int) -> None:
    learned = tiny(context_length=wanted, max_steps=1, batch_size=1, validation_fraction=0.1)
    inputs = np.resize(X, (rows, 3))
    assert learned.fit(inputs, inputs[:, 0]).context_length_ == context


def test_the_first_row_is_trained_on() -> None:
    only_first = np.where(np.arange(20) < 2, Y[:20], np.nan)
    learned = tiny(context_length=20, validation_fraction=0).fit(X[:20], only_first)
    assert all(record.loss > 0 for record in learned.history_)


def test_best_weights_are_those_of_the_tail() -> None:
    losses = [record.validation_loss for record in tiny().fit(X[:100], Y[:100]).history_]
    assert np.isfinite(losses).all()
    learned = tiny(validation_fraction=0).fit(X[:100], Y[:100])
    assert np.isnan([record.validation_loss for record in learned.history_]).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context_length", 0), ("context_length", 2.0), ("blocks", "x"), ("n_heads", 3),
        ("dropout", 1), ("max_steps", 0), ("batch_size", 0), ("learning_rate", 0),
        ("validation_fraction", 1), ("patience", 0),
    ],
)  # fmt: skip
def test_refuses_what_cannot_be(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must"):
        tiny(**{name: value}).fit(X[:50], Y[:50])


def test_refuses_what_it_cannot_learn() -> None:
    unknown = np.stack([Y[:50], np.full(50, np.nan)], 1)
    with pytest.raises(SeriesError, match=r"the first 45 rows\) in column 1; drop it"):
        tiny().fit(X[:50], unknown)
    with pytest.raises(SeriesError, match="in its 50 rows in column 0"):
        tiny().fit(X[:50], Y[:50]).score(X[:50], unknown[:, 1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        tiny().fit(X[:50], Y[:49])
    with pytest.raises(ValueError, match="Input y contains infinity"):
        tiny().fit(X[:50], np.full(50, np.inf))


def test_rows_are_one_run_in_the_order_of_time() -> None:
    hours = pd.date_range("2026-01-01", periods=60, freq="h")
    X = pd.DataFrame({"a": np.arange(60.0)}, hours)
    y = X["a"].rename("y")
    regressor = XLSTMRegressor(max_steps=1, d_model=8, n_heads=2)
    for rows, target, message in (
        (X, y[::-1], "different indexes"),
        (X[::-1], y[::-1], "go back in time"),
        (pd.concat({"m": X}), pd.concat({"m": y}), "several series"),
    ):
        with pytest.raises(ValueError, match=message):
            regressor.fit(rows, target)


def test_a_tail_in_which_nothing_is_known_is_told() -> None:
    y = np.where(np.arange(60) < 50, np.arange(60.0), np.nan)
    with pytest.warns(SeriesWarning, match="the last weights are kept"):
        XLSTMRegressor(max_steps=1, d_model=8, n_heads=2).fit(np.arange(60.0)[:, None], y)


def test_what_is_for_forecasters_says_so(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="takes an XLSTMForecaster, got XLSTMRegressor"):
        export_onnx(XLSTMRegressor(), tmp_path / "model.onnx")
    with pytest.raises(TypeError, match="takes an XLSTMForecaster, got XLSTMRegressor"):
        backtest(XLSTMRegressor(), np.zeros(100))

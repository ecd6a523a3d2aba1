"""The estimator keeps scikit-learn's contract and gives back what it was given, continued."""

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

from tests.conftest import ARRAY, HOURLY, small
from xlstm_ts import XLSTMForecaster
from xlstm_ts.exceptions import SeriesError, TrainingError
from xlstm_ts.runs import Record
from xlstm_ts.training import train

RNG = np.random.default_rng(0)


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
    forecaster = small(device="cpu").fit(y)  # where what was loaded computes
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


def test_a_silent_tail_chooses_no_weights() -> None:
    y = ARRAY.copy()
    y[-16:] = np.nan
    forecaster = small().fit(y)
    assert math.isnan(forecaster.history_[-1].validation_loss)


def test_the_validation_tail_leaks_into_nothing() -> None:
    changed = ARRAY.copy()
    changed[-16:] = changed[-16:] * 3 + 100
    # One step is one look, and a span of its own keeps the season out of the comparison.
    one, other = (small(max_steps=1, scaling_span=50.0).fit(y) for y in (ARRAY, changed))
    assert one.history_[0].validation_loss != other.history_[0].validation_loss
    others = other.model_.state_dict()
    for name, part in one.model_.state_dict().items():  # center and spread among them
        assert torch.equal(part, others[name]), name
    assert one.model_.center.item() == pytest.approx(ARRAY[:-16].mean())
    assert one.model_.spread.item() == pytest.approx(ARRAY[:-16].std())


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


@pytest.mark.parametrize("follows", [True, False])
def test_score_waits_for_a_season_longer_than_the_context(
    follows: bool, sine: pd.DataFrame
) -> None:
    forecaster = small().fit(sine.iloc[:600])
    assert forecaster.season_length_ == 24 > forecaster.context_length_ == 16
    start = 600 if follows else 610
    known = sine.iloc[start - (16 if follows else 0) :]
    origins = np.arange(24, len(known) - 4 + 1, 4)
    values = known.to_numpy()
    forecasts = np.stack([forecaster.predict(known.iloc[:origin]) for origin in origins])
    truth = np.stack([values[origin : origin + 4] for origin in origins])
    naive = np.stack([values[origin - 24 : origin - 20] for origin in origins])
    there = ~np.isnan(naive + truth)
    ours, theirs = (
        np.where(there, np.abs(guess - truth), 0).sum((0, 1)) for guess in (forecasts, naive)
    )
    expected = pytest.approx(np.mean(1 - ours / theirs), rel=1e-5)
    assert forecaster.score(sine.iloc[start:]) == expected
    with pytest.raises(SeriesError, match="at least 28 readings are needed, 24 to forecast from"):
        forecaster.score(sine.iloc[610 : 610 + 27])


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


def test_windows_and_weights_draw_from_seeds_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds = []

    def watched(*args: object, generator: torch.Generator, **kwargs: object) -> list[Record]:
        seeds.append((torch.initial_seed(), generator.initial_seed()))
        return train(*args, generator=generator, **kwargs)

    monkeypatch.setattr("xlstm_ts.forecaster.train", watched)
    small(random_state=0).fit(ARRAY)
    small(random_state=0).fit(ARRAY)
    small(random_state=1).fit(ARRAY)
    assert seeds[0] == seeds[1]
    assert len({*seeds[0], *seeds[2]}) == 4


# Sums in float64 of any of these constants err by rounding.
@pytest.mark.parametrize("constant", [0.1, -1e9 / 7, 1e-12 / 3, 0.0])
def test_rounding_is_no_spread(constant: float) -> None:
    y = np.stack([ARRAY, np.full(160, constant)], 1)
    forecaster = small().fit(y)
    assert forecaster.model_.spread[1].item() == pytest.approx(abs(constant) or 1)
    assert np.isfinite(forecaster.predict_quantiles()).all()


@pytest.mark.parametrize("level", [0.0, 1e3, -1e9])
@pytest.mark.parametrize("size", [3.0, 50.0])
def test_a_small_spread_on_a_large_level_counts(level: float, size: float) -> None:
    y = level + size * RNG.standard_normal(160)
    forecaster = small().fit(y)
    assert forecaster.model_.spread.item() == pytest.approx(y[:-16].std(), rel=1e-6)
    assert np.abs(forecaster.predict() - level).max() < 10 * size + 1e-7 * abs(level)


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
    y = ARRAY.copy()
    y[-16:] *= -1  # what is learned before the tail is soon wrong in it
    forecaster = small(max_steps=200, learning_rate=3e-2, patience=2, dropout=0.0).fit(y)
    losses = [record.validation_loss for record in forecaster.history_]
    assert len(losses) < 10
    assert losses.index(min(losses)) == len(losses) - 3
    without_tail = small(validation_fraction=0).fit(ARRAY)
    assert math.isnan(without_tail.history_[-1].validation_loss)


@pytest.mark.parametrize("fraction", [0.0, 0.1])
@pytest.mark.parametrize("max_steps", [1, 30])
def test_a_diverged_fit_is_an_error_and_leaves_what_was_there(
    fraction: float, max_steps: int
) -> None:
    message = r"diverged: the loss at step \d+ is .*lower `learning_rate`"
    forecaster = small(learning_rate=1e30, validation_fraction=fraction, max_steps=max_steps)
    with pytest.raises(TrainingError, match=message):
        forecaster.fit(ARRAY)
    with pytest.raises(NotFittedError):
        forecaster.predict()
    forecaster.set_params(learning_rate=1e-3).fit(ARRAY)
    before = dict(vars(forecaster))
    with pytest.raises(TrainingError):
        forecaster.set_params(learning_rate=1e30).fit(ARRAY * 2)
    assert vars(forecaster) == before | {"learning_rate": 1e30}
    assert np.isfinite(forecaster.predict()).all()


def test_a_failing_callback_leaves_what_was_there() -> None:
    forecaster, seen = small().fit(ARRAY), []
    before = dict(vars(forecaster))

    def failing(record: Record) -> None:
        raise LookupError(record.step)

    callbacks = [seen.append, failing]
    with pytest.raises(LookupError):
        forecaster.set_params(callbacks=callbacks).fit(ARRAY * 2)
    assert len(seen) == 1
    assert vars(forecaster) == before | {"callbacks": callbacks}


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
        ({"horizon": 4.0}, "`horizon` must be an integer, got 4.0"),
        ({"horizon": "4"}, "`horizon` must be an integer, got '4'"),
        ({"horizon": True}, "`horizon` must be an integer, got True"),
        ({"horizon": None}, "`horizon` must be an integer, got None"),
        ({"context_length": 16.0}, "`context_length` must be an integer, got 16.0"),
        ({"context_length": "16"}, "`context_length` must be an integer, got '16'"),
        ({"patch_length": "2"}, "`patch_length` must be an integer, got '2'"),
        ({"d_model": 8.0}, "`d_model` must be an integer, got 8.0"),
        ({"n_heads": 2.0}, "`n_heads` must be an integer"),
        ({"expansion": 1.5}, "`expansion` must be an integer"),
        ({"linear_length": 3.0}, "`linear_length` must be an integer"),
        ({"max_steps": 3.0}, "`max_steps` must be an integer"),
        ({"max_steps": "3"}, "`max_steps` must be an integer"),
        ({"batch_size": 8.0}, "`batch_size` must be an integer"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"patience": 2.5}, "`patience` must be an integer"),
        ({"patience": 0}, "`patience` must be at least 1"),
        ({"verbose": "1"}, "`verbose` must be an integer"),
        ({"max_time": 0}, "`max_time` must be above 0, got 0"),
        ({"callbacks": 3}, "`callbacks` must be a callable or a sequence of them, got 3"),
        ({"callbacks": (max, "max")}, "`callbacks` must be .* got 'max'"),
        ({"checkpoint": 3}, "`checkpoint` must be a path, got 3"),
        ({"learning_rate": 0.0}, "`learning_rate` must be above 0, got 0.0"),
        ({"learning_rate": math.nan}, "`learning_rate` must be above 0, got nan"),
        ({"learning_rate": "1e-3"}, "`learning_rate` must be a number, got '1e-3'"),
        ({"weight_decay": -0.1}, "`weight_decay` must be at least 0, got -0.1"),
        ({"gradient_clip": -1.0}, "`gradient_clip` must be above 0, got -1.0"),
        ({"scaling_span": "9"}, "`scaling_span` must be a number, got '9'"),
        ({"dropout": "0"}, "`dropout` must be a number, got '0'"),
        ({"validation_fraction": None}, "`validation_fraction` must be a number, got None"),
        ({"quantiles": 0.5}, "`quantiles` must be a sequence of levels, got 0.5"),
        ({"quantiles": ("0.5",)}, "`quantiles` must be a number, got '0.5'"),
        ({"blocks": 2}, "`blocks` must be a word .* got 2"),
        ({"context_length": 150}, "too short: 160 readings, at least 170 are needed"),
    ],
)
def test_wrong_parameters_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes).fit(ARRAY)


def test_other_channels_are_refused() -> None:
    forecaster = small().fit(SERIES["frame"])
    with pytest.raises(SeriesError, match="1 channels, the model was trained on 2: a, 3"):
        forecaster.predict(ARRAY)
    with pytest.raises(SeriesError, match="rename or reorder"):
        forecaster.predict(SERIES["frame"][[3, "a"]])
    with pytest.raises(NotFittedError):
        small().predict()


@pytest.mark.parametrize("method", ["predict", "predict_quantiles", "score"])
def test_another_step_is_refused(method: str) -> None:
    forecaster = small().fit(SERIES["series"])
    faster = pd.Series(ARRAY, pd.date_range("2024-06-01", periods=160, freq="5min"))
    message = r"`y` has a step of 5min, the model was trained on one of h; .*resample\('h'\)"
    with pytest.raises(SeriesError, match=message):
        getattr(forecaster, method)(faster)
    with pytest.raises(SeriesError, match="step of D"):
        getattr(forecaster, method)(SERIES["periods"])


INTERVAL_INPUTS = {"array": ARRAY, "2-D": np.stack([ARRAY, ARRAY[::-1]], 1)}


@pytest.mark.parametrize("kind", INTERVAL_INPUTS)
def test_intervals_hold_the_forecast_and_widen_with_coverage(kind: str) -> None:
    y = INTERVAL_INPUTS[kind]
    forecaster = small(max_steps=30, validation_fraction=0.4).fit(y)
    narrow, wide = (forecaster.predict_interval(coverage=share) for share in (0.5, 0.9))
    assert narrow.shape == (4, *y.shape[1:], 2)
    assert (wide[..., 0] <= narrow[..., 0]).all()
    assert (narrow[..., 1] <= wide[..., 1]).all()
    assert (wide[..., 0] < wide[..., 1]).all()
    elsewhere = forecaster.predict_interval(y[:40], coverage=0.9)
    assert not np.allclose(elsewhere, wide)


def test_intervals_of_a_series_have_names() -> None:
    forecaster = small(validation_fraction=0.4).fit(pd.Series(ARRAY, HOURLY))
    bounds = forecaster.predict_interval(coverage=0.5)
    assert list(bounds.columns) == ["lower", "upper"]
    assert bounds.index.equals(forecaster.predict().index)


def test_interval_without_a_tail_is_refused() -> None:
    forecaster = small(validation_fraction=0).fit(ARRAY)
    with pytest.raises(ValueError, match=r"needs at least 19 .* there are 0"):
        forecaster.predict_interval(coverage=0.9)


def test_intervals_cover_what_they_say_on_a_steady_series() -> None:
    rng = np.random.default_rng(0)
    y = np.sin(np.arange(2400) * np.pi / 4) + 0.3 * rng.standard_normal(2400)
    forecaster = small(max_steps=60, validation_fraction=0.3).fit(y[:1600])
    inside = []
    for origin in range(1600, 2390, 5):  # every phase of the season of 8
        bounds = forecaster.predict_interval(y[:origin], coverage=0.8)
        truth = y[origin : origin + 4]
        inside.append((bounds[:, 0] <= truth) & (truth <= bounds[:, 1]))
    assert np.mean(inside) == pytest.approx(0.8, abs=0.04)

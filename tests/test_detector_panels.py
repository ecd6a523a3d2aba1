"""A detector of several series: trained on all of them, asked about any."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlstm_ts import XLSTMAnomalyDetector
from xlstm_ts.anomaly import AnomalyHost, HostConfig
from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.export.detectors import export_detector
from xlstm_ts.streaming.detectors import DetectorModel

LENGTH = 400


def _machine(seed: int, length: int = LENGTH) -> pd.DataFrame:
    """Return an autoregression and a channel that follows it."""
    rng = np.random.default_rng(seed)
    noise, first = rng.standard_normal((length, 2)), np.zeros(length)
    for t in range(1, length):
        first[t] = 0.8 * first[t - 1] + noise[t, 0]
    index = pd.date_range("2026-01-05", periods=length, freq="min", name="time")
    return pd.DataFrame({"a": first, "b": 20 - first + 0.3 * noise[:, 1]}, index)


@pytest.fixture(scope="module")
def machines() -> pd.DataFrame:
    return pd.concat({f"m{seed}": _machine(seed) for seed in range(5)}, names=["machine"])


@pytest.fixture(scope="module")
def detector(machines: pd.DataFrame) -> XLSTMAnomalyDetector:
    new = XLSTMAnomalyDetector(
        alpha=0.005, d_model=8, n_heads=2, context_length=32, max_steps=20, random_state=0
    )
    return new.fit(machines)


def test_scores_come_back_by_the_rows_of_what_came_in(
    detector: XLSTMAnomalyDetector, machines: pd.DataFrame
) -> None:
    alone = {key: detector.anomaly_score(machines.loc[key]) for key in ("m1", "m3")}
    expected = np.concatenate([*alone.values()])
    some = machines.loc[["m1", "m3"]]
    np.testing.assert_array_equal(detector.anomaly_score(some), expected)
    between = some.swaplevel().sort_index().swaplevel()  # a row of each machine, in turn
    scores = pd.Series(detector.anomaly_score(between), between.index)
    np.testing.assert_array_equal(scores.loc["m3"], alone["m3"])
    array = np.stack([some.loc[key].to_numpy() for key in alone])
    by_counts = XLSTMAnomalyDetector(use_model=False).fit(array)
    assert by_counts.predict(array).shape == (2, LENGTH)
    long = some["a"].rename("y").rename_axis(["unique_id", "ds"]).reset_index()
    of_long = XLSTMAnomalyDetector(use_model=False).fit(long)
    with pytest.warns(match="leaves out 1 stamps in 1 of 2 series"):
        scores = of_long.anomaly_score(long.drop(index=[500]))
    assert len(scores) == 2 * LENGTH - 1
    assert np.isfinite(scores).all()


def test_events_name_their_series(detector: XLSTMAnomalyDetector, machines: pd.DataFrame) -> None:
    later = pd.concat({"new": _machine(7), 8: _machine(8)})
    later.loc[("new", later.loc["new"].index[300]), "b"] += 15
    events = detector.detect_events(later)
    (event,) = (row for row in events.itertuples() if row.score > 6)
    assert (event.series, event.peak) == ("new", later.loc["new"].index[300])
    assert detector.explain(event).index[0] == "b"
    assert "series" not in detector.detect_events(_machine(7))
    for ask in (detector.trace, detector.judged):
        with pytest.raises(SeriesError, match=r"holds 2 series, .* as X.loc\['name'\]"):
            ask(later)


def test_more_series_tell_more_of_what_is_usual(machines: pd.DataFrame) -> None:
    """Tails from four times as many readings keep a budget that those of one series do not."""
    others = pd.concat({seed: _machine(seed, 3000) for seed in range(20, 26)})
    excess = []
    for training in (machines.loc["m0"], machines):
        detector = XLSTMAnomalyDetector(alpha=0.002, use_model=False).fit(training)
        scores = detector.anomaly_score(others).reshape(6, -1)[:, 100:]
        excess.append(abs(np.log(np.mean(scores >= 3) / 1e-3)))
    assert excess[1] < excess[0]
    assert excess[1] < np.log(2)


def test_one_named_series_is_as_good_as_one_alone(machines: pd.DataFrame) -> None:
    alone, named = (
        XLSTMAnomalyDetector(use_model=False).fit(given)
        for given in (machines.loc["m0"], machines.loc[["m0"]])
    )
    later = _machine(9)
    np.testing.assert_array_equal(alone.anomaly_score(later), named.anomaly_score(later))


def test_nothing_goes_from_one_series_to_the_next(machines: pd.DataFrame) -> None:
    """Runs that end stuck and far off do not tell how long or how far the next may be."""
    ends = machines.copy()
    rows = ends.groupby(level=0).cumcount() >= LENGTH - 5
    ends.loc[rows.to_numpy(), "b"] = 20.0
    host = XLSTMAnomalyDetector(use_model=False).fit(ends).host_
    assert host.scorer.stuck.longest[1] == 3 * 5 + 1  # and not of ten
    plain = XLSTMAnomalyDetector(use_model=False).fit(machines).host_
    np.testing.assert_allclose(host.scorer.slow.limit, plain.scorer.slow.limit, rtol=0.3)


def test_each_series_begins_as_a_stream_does() -> None:
    first, second = (_machine(seed).to_numpy() for seed in range(2))
    first = np.concatenate((first[:-60], np.full((60, 2), np.nan)))
    host = AnomalyHost(HostConfig())
    begun = host.start([first, second])[1][0]
    assert (begun.gap == 0).all()


def test_file_and_graph_of_several_series(detector: XLSTMAnomalyDetector, tmp_path: Path) -> None:
    later = _machine(11)
    expected = detector.anomaly_score(later)
    detector.save(tmp_path / "detector")
    loaded = XLSTMAnomalyDetector.load(tmp_path / "detector")
    np.testing.assert_array_equal(loaded.anomaly_score(later), expected)
    export_detector(loaded, tmp_path / "detector.onnx", scores=tmp_path / "scores.onnx")
    stream = DetectorModel(tmp_path / "detector.onnx").create_stream()
    verdicts = [stream.step(row) for row in later.to_numpy()]
    np.testing.assert_allclose([one.score for one in verdicts], expected, atol=1e-4)


def test_a_series_too_short_to_be_judged_is_told() -> None:
    detector = XLSTMAnomalyDetector(use_model=False).fit(_machine(0))
    mixed = pd.concat({"long": _machine(1), "short": _machine(2, 60)})
    with pytest.warns(SeriesWarning, match="A series of `X` has 60 readings, and none of"):
        scores = detector.anomaly_score(mixed)
    assert (scores[-60:] == 0).all()


def test_short_series_count_together() -> None:
    short = pd.concat({seed: _machine(seed, 104) for seed in range(3)})
    detector = XLSTMAnomalyDetector(use_model=False).fit(short)
    assert detector.anomaly_score(_machine(12)).max() > 1
    with pytest.raises(
        SeriesError, match=r"needs at least 110 readings .* `X` has 208, 8 of them so"
    ):
        XLSTMAnomalyDetector(use_model=False).fit(short.loc[[0, 1]])

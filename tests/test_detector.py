"""The detector as a user has it."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from xlstm_ts import AnomalyDisplay, XLSTMAnomalyDetector, XLSTMForecaster
from xlstm_ts.anomaly import Verdict
from xlstm_ts.datasets.synthetic import make_sensor_stream
from xlstm_ts.exceptions import ExportError, SeriesError, SeriesWarning, StreamError
from xlstm_ts.export.detectors import export_detector
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel
from xlstm_ts.streaming.detectors import DetectorModel


@pytest.fixture(scope="module")
def readings() -> pd.DataFrame:
    stream = make_sensor_stream(1800, n_faults=0, freq="15min", random_state=0)
    readings = stream.clean.iloc[:, :3].copy()
    readings.iloc[1500, 1] += 100  # in the middle of the second half
    readings.iloc[1600:1610] = np.nan
    return readings


@pytest.fixture(scope="module")
def detector(readings: pd.DataFrame) -> XLSTMAnomalyDetector:
    new = XLSTMAnomalyDetector(
        alarms_per_day=0.05, d_model=8, n_heads=2, context_length=32, max_steps=20, random_state=0
    )
    return new.fit(readings.iloc[:1200])


@pytest.fixture(scope="module")
def path(detector: XLSTMAnomalyDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    export_detector(detector, path)
    return path


def test_signs_are_those_of_scikit_learn(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame
) -> None:
    later = readings.iloc[1200:]
    scores = detector.score_samples(later)
    assert scores.argmin() in (300, 301)
    assert (scores <= 0).all()
    assert np.array_equal(detector.anomaly_score(later), -scores)
    assert np.array_equal(detector.decision_function(later), scores - detector.offset_)
    predicted = detector.predict(later)
    assert predicted[300] == -1
    assert np.array_equal(predicted == -1, scores < detector.offset_)
    assert detector.anomaly_score(later, kind="point").argmax() == 300
    with pytest.raises(ValueError, match="`kind` must be one of joint, point, range, level"):
        detector.anomaly_score(later, kind="best")


def test_events_by_time_with_their_channels(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame
) -> None:
    events = detector.detect_events(readings.iloc[1200:])
    event = events[events["start"] == readings.index[1500]].iloc[0]
    assert event["kind"] in ("spike", "deviation")
    assert event["channels"][0] == "motor_current_A"
    explained = detector.explain(event)
    assert explained.index[0] == "motor_current_A"
    assert explained["share"].sum() == pytest.approx(1)
    first = explained.iloc[0]
    assert first["reading"] == readings.iloc[1500, 1]
    assert abs(first["expected"] - (first["reading"] - 100)) < 20
    with pytest.raises(ValueError, match="a row of `detect_events`"):
        detector.explain(3)


def test_events_that_were_kept_in_a_file_are_explained(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame, tmp_path: Path
) -> None:
    later = readings.iloc[1200:].copy()
    later.iloc[300, 0] = np.nan  # where the peak is
    events = detector.detect_events(later)
    events.to_csv(tmp_path / "events.csv", index=False)
    kept = pd.read_csv(tmp_path / "events.csv", parse_dates=["start", "end", "peak"])
    row = int(np.flatnonzero(events["peak"] == later.index[300])[0])
    event, right = events.iloc[row], detector.explain(events.iloc[row])
    assert np.isnan(right.loc["load_pct", "reading"])
    assert kept["peak"].tolist() == events["peak"].tolist()
    for same in (kept.iloc[row], event.to_dict(), next(events[row : row + 1].itertuples())):
        pd.testing.assert_frame_equal(detector.explain(same), right)
    for other in (later.iloc[0], {"details": "{'share': {}}"}, {"details": "none ("}, events):
        with pytest.raises(ValueError, match="with its `details`"):
            detector.explain(other)


def test_a_stuck_sensor_is_explained_by_its_own_readings(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame
) -> None:
    later = readings.iloc[1200:1500].copy()
    later.iloc[150:, 1] = 50.125
    later.iloc[200, 2] += 30  # an error of another channel meanwhile
    event = detector.detect_events(later).iloc[-1]
    assert event["kind"] == "stuck"
    explained = detector.explain(event)
    assert explained.index[0] == "motor_current_A"
    assert explained.loc["bearing_temperature_C", "reading"] == later.iloc[-1, 2]


def test_budget_changes_without_a_fit(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame
) -> None:
    scores = detector.score_samples(readings)
    assert detector.alpha_ == pytest.approx(0.05 / 96)
    try:
        assert detector.set_budget(alpha=0.3).alpha_ == 0.3
        assert np.array_equal(detector.score_samples(readings), scores)
        assert (detector.predict(readings) == -1).sum() == (scores < np.log10(0.3)).sum() > 0
        with pytest.raises(ValueError, match="one budget"):
            detector.set_budget(alpha=0.1, contamination=0.1)
        with pytest.raises(ValueError, match=r"one budget, .* got none"):
            detector.set_budget()
        assert (detector.alpha_, detector.alpha) == (0.3, 0.3)
    finally:
        detector.set_budget(alarms_per_day=0.05)


def test_nothing_looks_ahead(detector: XLSTMAnomalyDetector, readings: pd.DataFrame) -> None:
    later = readings.iloc[1200:]
    whole = detector.trace(later)
    for cut in (120, 301, 555):
        changed = later.copy()
        changed.iloc[cut:] = 0
        part = detector.trace(changed)
        for name in ("scores", "range_scores", "z", "expected"):
            before, after = getattr(whole, name)[:cut], getattr(part, name)[:cut]
            assert np.array_equal(before, after, equal_nan=True), name


def test_batch_stream_and_graph_say_the_same(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame, path: Path
) -> None:
    later = readings.iloc[1200:]
    trace = detector.trace(later)
    for stream in (detector.stream(), DetectorModel(path).create_stream()):
        verdicts = [stream.step(reading) for reading in later.to_numpy()]
        assert isinstance(verdicts[0], Verdict)
        for field in Verdict._fields[:7]:
            given = np.array([getattr(verdict, field) for verdict in verdicts])
            assert np.abs(given - getattr(trace, f"{field}s")).max() <= 1e-4, field
        assert [verdict.status for verdict in verdicts] == trace.statuses
        events = {one.event.number: one.event for one in verdicts if one.event is not None}
        assert [(one.start, one.end, one.kind) for one in events.values()] == [
            (one.start, one.end, one.kind) for one in trace.events
        ]


def test_a_stream_goes_on_after_a_restart(
    readings: pd.DataFrame, path: Path, tmp_path: Path
) -> None:
    model, later = DetectorModel(path), readings.iloc[1200:].to_numpy()
    whole, stream = model.create_stream(), model.create_stream()
    for reading in later[:302]:
        whole.step(reading)
        stream.step(reading)
    stream.snapshot(tmp_path / "snapshot", offset=302)
    again = DetectorModel(path).create_stream()
    assert again.restore(tmp_path / "snapshot") == 302
    for reading in later[302:]:
        one, other = whole.step(reading), again.step(reading)
        assert (one.score, one.range_score, one.status) == (
            other.score, other.range_score, other.status,
        )  # fmt: skip
    with pytest.raises(StreamError, match=r"one value for each of load_pct.*got shape \(2,\)"):
        again.step([1.0, 2.0])


def test_stamps_that_are_left_out_are_missing_readings(
    path: Path, readings: pd.DataFrame, tmp_path: Path
) -> None:
    later = readings.iloc[1200:1500]
    told, given = DetectorModel(path).create_stream(), DetectorModel(path).create_stream()
    there = np.ones(len(later), bool)
    there[[120, 200, 201, 202]] = False
    for time, reading, is_there in zip(later.index, later.to_numpy(), there, strict=True):
        right = given.step(reading if is_there else np.full(3, np.nan))
        if is_there:
            assert told.step(reading, time=str(time)).score == right.score
            assert told.filled == {121: 1, 203: 3}.get(later.index.get_loc(time), 0)
    with pytest.raises(StreamError, match=r"which is not after .*or begin a new stream\."):
        told.step(later.iloc[0], time=later.index[0])
    told.snapshot(tmp_path / "state")
    again = DetectorModel(path).create_stream()
    again.restore(tmp_path / "state")
    after = later.index[-1] + 3 * (later.index[1] - later.index[0])
    assert again.step(later.iloc[0], time=after).score == told.step(later.iloc[0], time=after).score
    assert again.filled == told.filled == 2


def test_a_pause_of_a_year_takes_no_minute(path: Path, readings: pd.DataFrame) -> None:
    stream, steps = DetectorModel(path).create_stream(), []
    take = stream._take
    stream._take = lambda values: steps.append(1) or take(values)  # type: ignore[method-assign]
    stream.step(readings.iloc[0], time=readings.index[0])
    verdict = stream.step(readings.iloc[1], time=readings.index[1] + pd.Timedelta(days=365))
    step = readings.index[1] - readings.index[0]
    assert stream.filled == pd.Timedelta(days=365) // step
    assert len(steps) < 10_000 < stream.filled
    assert verdict.status == "warm-up"


def test_a_file_keeps_everything(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame, tmp_path: Path
) -> None:
    detector.save(tmp_path / "detector")
    loaded = XLSTMAnomalyDetector.load(tmp_path / "detector")
    assert loaded.get_params() == detector.get_params()
    assert (loaded.offset_, loaded.channels_) == (detector.offset_, detector.channels_)
    later = readings.iloc[1200:]
    assert np.array_equal(loaded.score_samples(later), detector.score_samples(later))
    assert loaded.set_budget(alarms_per_day=2).alpha_ == pytest.approx(2 / 96)
    (tmp_path / "other").write_bytes(b"no detector")
    with pytest.raises(SeriesError, match="is not a saved detector"):
        XLSTMAnomalyDetector.load(tmp_path / "other")
    with pytest.raises(SeriesError, match=r"holds a detector: load it with XLSTMAnomalyDetector"):
        XLSTMForecaster.load(tmp_path / "detector")
    detector.forecaster_.save(tmp_path / "forecaster")
    with pytest.raises(SeriesError, match=r"holds a forecaster: load it with XLSTMForecaster"):
        XLSTMAnomalyDetector.load(tmp_path / "forecaster")


def test_a_sensor_that_stands_still_is_no_news_until_it_moves() -> None:
    still = pd.Series(np.full(1500, 37.3))
    detector = XLSTMAnomalyDetector(max_steps=5, random_state=0).fit(still)
    assert detector.detect_events(still).empty
    assert (detector.predict(still) == 1).all()
    moved = still.copy()
    moved.iloc[800:803] += 1
    assert detector.detect_events(moved)["start"].tolist() == [800]


def test_without_a_model(readings: pd.DataFrame, tmp_path: Path) -> None:
    alone = XLSTMAnomalyDetector(use_model=False).fit(readings.iloc[:1200])
    later = readings.iloc[1200:]
    scores = alone.score_samples(later)
    assert scores.argmin() in (300, 301)
    stream = alone.stream()
    assert [-stream.step(reading).score for reading in later.to_numpy()] == scores.tolist()
    alone.save(tmp_path / "detector")
    loaded = XLSTMAnomalyDetector.load(tmp_path / "detector")
    assert np.array_equal(loaded.score_samples(later), scores)
    with pytest.raises(ExportError, match="no graph to export"):
        export_detector(alone, tmp_path / "model.onnx")


def test_what_cannot_be_used_is_refused(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame, graph_path: Path, path: Path
) -> None:
    with pytest.raises(NotFittedError):
        clone(detector).predict(readings)
    with pytest.raises(ValueError, match="needs readings with times"):
        XLSTMAnomalyDetector(alarms_per_day=1).fit(readings.to_numpy())
    with pytest.raises(SeriesError, match="2 channels, the model was trained on 3: load_pct"):
        detector.predict(readings.iloc[:, :2])
    with pytest.raises(SeriesError, match="step of 30min, the model was trained on one of 15min"):
        detector.predict(readings.iloc[::2])
    with pytest.raises(TypeError, match="and a detector to `export_detector`"):
        export_onnx(detector, path)
    with pytest.raises(TypeError, match="got XLSTMForecaster; a forecaster goes to `export_onnx`"):
        export_detector(detector.forecaster_, path)
    with pytest.raises(StreamError, match="a forecaster and no detector"):
        DetectorModel(graph_path)
    with pytest.raises(StreamError, match="holds a detector"):
        StreamModel(path)


A_SERIES = "rows are readings in the order of time: what one is worth follows from those before it"
OWN_WORDS = "refused as the check wants, but in words about series, channels and readings"
RARE = "a budget of one reading in 10,000 finds nothing in a few hundred of noise"
EXPECTED = {
    "check_outliers_train": RARE,
    "check_outliers_fit_predict": RARE,
    "check_fit1d": "one axis is a series of one channel",
    "check_n_features_in": "a series has channels, and `channels_` names them",
    "check_n_features_in_after_fitting": "a series has channels, and `channels_` names them",
    "check_dtype_object": "numbers held as objects are refused, with the cure: no guess at text",
    "check_complex_data": OWN_WORDS,
    "check_estimators_empty_data_messages": OWN_WORDS,
    "check_fit2d_1sample": OWN_WORDS,
    "check_fit2d_predict1d": OWN_WORDS,
    "check_methods_sample_order_invariance": A_SERIES,
    "check_methods_subset_invariance": A_SERIES,
}


# The checks bring series with gaps and of constants on purpose.
@pytest.mark.filterwarnings("ignore")
def test_keeps_the_contract_of_scikit_learn() -> None:
    small = XLSTMAnomalyDetector(
        d_model=4, n_heads=1, context_length=4, max_steps=2, warm_up=0, n_lags=2, random_state=0
    )
    results = check_estimator(small, expected_failed_checks=EXPECTED, on_fail=None, on_skip=None)
    failed = {one["check_name"]: one["exception"] for one in results if one["status"] == "failed"}
    assert failed == {}
    assert {one["check_name"] for one in results if one["status"] == "xfail"} == set(EXPECTED)


def test_a_picture_of_it(detector: XLSTMAnomalyDetector, readings: pd.DataFrame) -> None:
    pytest.importorskip("matplotlib")
    display = AnomalyDisplay.from_estimator(detector, readings.iloc[1200:])
    signal, score, shares = display.axes_
    assert signal.get_ylabel() == "motor_current_A"
    assert len(signal.patches) == len(display.trace.events) > 0
    assert score.lines[0].get_ydata() == pytest.approx(display.trace.scores)
    assert score.lines[1].get_ydata()[0] == -np.log10(detector.alpha_)
    assert [label.get_text() for label in shares.get_yticklabels()] == list(readings.columns)
    display.figure_.canvas.draw()
    alone = AnomalyDisplay.from_estimator(
        detector, readings.iloc[1200:].to_numpy(), channel="load_pct"
    )
    assert alone.ax_.get_ylabel() == "load_pct"
    with pytest.raises(ValueError, match="`channel` must be one of load_pct"):
        AnomalyDisplay.from_estimator(detector, readings, channel="none")


def test_a_picture_of_no_detector_is_refused(fitted: XLSTMForecaster, sine: pd.DataFrame) -> None:
    with pytest.raises(TypeError, match="got XLSTMForecaster; a forecaster goes to"):
        AnomalyDisplay.from_estimator(fitted, sine)


def test_each_row_has_its_score_where_stamps_are_left_out(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame
) -> None:
    later = readings.iloc[1200:]
    gappy = later.drop(later.index[150:170])
    with pytest.warns(SeriesWarning, match="leaves out 20 stamps"):
        scores = detector.score_samples(gappy)
    missing = later.copy()
    missing.iloc[150:170] = np.nan
    rest = np.r_[0:150, 170 : len(later)]
    assert np.array_equal(scores, detector.score_samples(missing)[rest])


def test_what_is_too_short_to_be_judged_is_told(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame
) -> None:
    with pytest.warns(SeriesWarning, match="has 100 readings, and none of the first 100"):
        assert (detector.predict(readings.iloc[1200:1300]) == 1).all()
    detector.predict(readings.iloc[1200:1301])


def test_streams_go_by_the_names_of_channels(
    detector: XLSTMAnomalyDetector, readings: pd.DataFrame, path: Path
) -> None:
    model = DetectorModel(path)
    assert model.channels == tuple(readings.columns)
    for make in (detector.stream, model.create_stream):
        one, other = make(), make()
        for row in range(1390, 1510):
            named = readings.iloc[row]
            assert one.step(named.to_numpy()).score == other.step(named[::-1]).score
        with pytest.raises(StreamError, match="motor_current_A"):
            one.step({"motor_current_A": 1.0})


def test_what_does_not_pickle_says_what_to_do(path: Path) -> None:
    with pytest.raises(TypeError, match="load its file in each process"):
        pickle.dumps(DetectorModel(path))


def test_a_stream_may_have_a_budget_of_its_own(path: Path, readings: pd.DataFrame) -> None:
    model = DetectorModel(path)
    strict, lax = model.create_stream(), model.create_stream()
    lax.set_budget(alpha=0.5)
    alarms = [
        sum(stream.step(reading).alarm for reading in readings.to_numpy()[1200:1500])
        for stream in (strict, lax)
    ]
    assert alarms[0] < alarms[1]
    with pytest.raises(ValueError, match=r"at this step, at most 48, got 100"):
        lax.set_budget(alarms_per_day=100)

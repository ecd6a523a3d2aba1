"""Export writes a verified file or none."""

import copy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

from tests.conftest import small
from xlstm_ts import XLSTMForecaster
from xlstm_ts.exceptions import ExportError
from xlstm_ts.export import chunk, graph, parity
from xlstm_ts.export.onnx import export_onnx
from xlstm_ts.streaming import StreamModel


def test_export_reports_its_errors(fitted: XLSTMForecaster, tmp_path: Path) -> None:
    report = export_onnx(fitted, tmp_path / "model.onnx")
    assert report.steps == 2000
    assert 0 < report.real <= 1e-4
    assert 0 < report.random <= 1e-4
    contract = StreamModel(tmp_path / "model.onnx").contract
    assert contract.channels == ("a", "b")
    assert contract.quantiles == (0.1, 0.5, 0.9)
    assert (contract.horizon, contract.step) == (12, "h")


@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_wrong_graph_is_never_written(
    wrong: float, fitted: XLSTMForecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("older")
    monkeypatch.setattr(graph, "VARIANCE_FLOOR", graph.VARIANCE_FLOOR + wrong)
    with pytest.raises(ExportError, match="No file was written"):
        export_onnx(fitted, path)
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_unfitted_forecaster_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        export_onnx(XLSTMForecaster(), tmp_path / "model.onnx")


def test_missing_folder_is_named(fitted: XLSTMForecaster, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        export_onnx(fitted, tmp_path / "nowhere" / "model.onnx")


def test_stream_goes_on_as_the_forecaster_predicts(
    fitted: XLSTMForecaster, graph_path: Path, sine: pd.DataFrame
) -> None:
    stream = StreamModel(graph_path).create_stream()
    for reading in sine.iloc[504:600].to_numpy():
        output = stream.step(reading)
    expected = fitted.predict(sine.iloc[504:600]).to_numpy()
    np.testing.assert_allclose(output.forecast, expected, atol=1e-3)


@pytest.mark.slow
def test_long_streams_do_not_drift(fitted: XLSTMForecaster, graph_path: Path) -> None:
    rng = np.random.default_rng(1)
    readings = [50, 3] + rng.standard_normal((100_000, 2)) * [10, 1]
    errors = parity.worst_errors(fitted.model_, graph_path, readings=readings)
    assert errors.max() <= parity.TOLERANCE
    assert errors[-1000:].max() <= 5 * errors[:1000].max()


def test_export_leaves_threads_alone(fitted: XLSTMForecaster, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        export_onnx(fitted, tmp_path / "model.onnx")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("error", "refused"), [(0.99e-4, False), (1.01e-4, True)])
def test_the_limit_is_a_ten_thousandth_of_the_scale(
    error: float,
    refused: bool,
    fitted: XLSTMForecaster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parity, "worst_errors", lambda *_, **__: np.array([0, error]))
    if refused:
        with pytest.raises(ExportError, match="1e-04 is allowed"):
            export_onnx(fitted, tmp_path / "model.onnx")
    else:
        assert export_onnx(fitted, tmp_path / "model.onnx").random == error


def test_every_part_of_the_check_counts(
    fitted: XLSTMForecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def errors(model, path, *, readings, **_):
        seen.append(readings)
        return np.array([np.nan if len(seen) == 2 else 1e-6])

    monkeypatch.setattr(parity, "worst_errors", errors)
    with pytest.raises(ExportError, match="nan"):
        export_onnx(fitted, tmp_path / "model.onnx")
    assert np.isnan(seen[0]).all(1).any()  # a gap of all channels
    context = fitted.context_.longest.values
    np.testing.assert_array_equal(seen[1][: len(context)], context)
    assert list(tmp_path.iterdir()) == []


def test_both_graphs_are_written_together(fitted: XLSTMForecaster, tmp_path: Path) -> None:
    paths = tmp_path / "model.onnx", tmp_path / "warmup.onnx"
    report = export_onnx(fitted, paths[0], warm_up=paths[1])
    assert max(report.real, report.random) <= 1e-4
    model = StreamModel(paths[0], warm_up=paths[1])
    assert model.warm_up_graph.chunk == 72  # three days
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_wrong_warm_up_graph_stops_both(
    fitted: XLSTMForecaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk, "VARIANCE_FLOOR", chunk.VARIANCE_FLOOR + 1e-3)
    with pytest.raises(ExportError, match="The warm-up graph differs"):
        export_onnx(fitted, tmp_path / "model.onnx", warm_up=tmp_path / "warmup.onnx")
    assert list(tmp_path.iterdir()) == []


def test_slstm_blocks_have_no_warm_up_graph(sine: pd.DataFrame, tmp_path: Path) -> None:
    forecaster = small(blocks="ms", max_steps=1).fit(sine["a"].to_numpy()[:100])
    with pytest.raises(ValueError, match="mLSTM alone, got blocks='ms'"):
        export_onnx(forecaster, tmp_path / "model.onnx", warm_up=tmp_path / "warmup.onnx")
    assert list(tmp_path.iterdir()) == []


def test_units_of_channels_are_told(fitted: XLSTMForecaster, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(fitted, path, units={"b": "°C", "a": "bar"})
    assert StreamModel(path).contract.units == ("bar", "°C")
    for wrong in ({"a": "bar"}, {"a": "bar", "b": "°C", "c": "V"}):
        with pytest.raises(ValueError, match="`units` must have one for each of a, b"):
            export_onnx(fitted, path, units=wrong)


def test_the_hash_tells_weights_apart(fitted: XLSTMForecaster, tmp_path: Path) -> None:
    hashes = []
    for change in (0.0, 0.0, 1e-3):
        other = copy.deepcopy(fitted)
        with torch.no_grad():
            other.model_.head.linear.bias += change
        export_onnx(other, tmp_path / "model.onnx")
        hashes.append(StreamModel(tmp_path / "model.onnx").contract.weights_hash)
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 64

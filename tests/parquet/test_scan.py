"""One pass finds every series, whatever the batches, and names what is wrong by its row."""

import datetime
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from xlstm_ts.exceptions import SeriesError, SeriesWarning
from xlstm_ts.frames import read_panel
from xlstm_ts.panels import LongColumns
from xlstm_ts.parquet import ParquetPanel, files, rows
from xlstm_ts.parquet.index import Index
from xlstm_ts.parquet.rows import read_series
from xlstm_ts.parquet.scan import read_index
from xlstm_ts.pools import Place

pa = pytest.importorskip("pyarrow", reason="no pyarrow: pip install 'xlstm-ts[parquet]'")
pq = pytest.importorskip("pyarrow.parquet")


def table(**changes: Any) -> pd.DataFrame:
    """Return three series of 30 readings, one a column of changes where there is one."""
    columns = {
        "unique_id": np.repeat(["a", "b", "c"], 30),
        "ds": np.tile(pd.date_range("2026-01-05", periods=30, freq="15min"), 3),
        "y": np.arange(90.0),
    }
    return pd.DataFrame(columns | changes)


def index_of(*frames: pd.DataFrame, folder: Path, **options: Any) -> Index:
    for number, frame in enumerate(frames):
        frame.to_parquet(folder / f"{number}.parquet", index=False, row_group_size=11)
    return read_index(ParquetPanel(folder, **options), long=LongColumns())


def whole(index: Index) -> dict[Any, pd.Series]:
    """Return each series as it is read in one piece."""
    places = [Place(n, 0, length) for n, length in enumerate(index.lengths.tolist())]
    parts = read_series(index, places)
    return {
        key: pd.Series(one.values[:, 0], one.index)
        for key, one in zip(index.keys, parts, strict=True)
    }


TIMES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "microseconds": lambda frame: frame["ds"],
    "nanoseconds": lambda frame: frame["ds"].astype("datetime64[ns]"),
    "zone": lambda frame: frame["ds"].dt.tz_localize("Europe/Berlin"),
    "counts": lambda frame: np.tile(np.arange(30, dtype=np.int32) * 5, 3),
    "dates": lambda frame: np.tile(
        [datetime.date(2026, 1, 1) + datetime.timedelta(days=n) for n in range(30)], 3
    ),
    "weeks": lambda frame: np.tile(pd.date_range("2026-01-04", periods=30, freq="W"), 3),
}


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("batch", [3, 7, 2**16])
def test_series_are_those_of_the_frame(
    kind: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH", batch)
    frame = table(ds=TIMES[kind](table()))
    frame = frame.drop(index=[3, 4, 40, 75])
    frame.loc[[10, 64], "y"] = np.nan
    with pytest.warns(SeriesWarning, match="leave out 4 stamps in 3 of 3 series"):
        index = index_of(frame, folder=tmp_path)
    held = frame.assign(ds=pd.to_datetime(frame["ds"])) if kind == "dates" else frame
    with pytest.warns(SeriesWarning):
        expected = read_panel(held)
    found = whole(index)
    assert list(found) == list(expected.series)
    for key, one in expected.series.items():
        np.testing.assert_array_equal(found[key], one.values[:, 0])
        assert list(found[key].index) == list(one.index)
        assert getattr(found[key].index, "freq", None) == getattr(one.index, "freq", None)


def test_stretches_are_cut_where_they_are_asked_for(tmp_path: Path) -> None:
    frame = table().drop(index=range(35, 50))
    late = frame["ds"] >= "2026-01-05 05:00"
    with pytest.warns(SeriesWarning):
        index = index_of(frame[~late], frame[late], folder=tmp_path)
    series = list(whole(index).values())
    random = np.random.default_rng(0)
    places = []
    for _ in range(50):
        start, stop = np.sort(random.choice(31, 2, replace=False)).tolist()
        places.append(Place(int(random.integers(3)), start, stop))
    for place, one in zip(places, read_series(index, places), strict=True):
        expected = series[place.series].iloc[place.start : place.stop]
        np.testing.assert_array_equal(one.values[:, 0], expected)
        assert one.index.equals(expected.index)


def test_of_a_series_with_many_gaps_no_more_is_read_than_a_batch_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BATCH", 50)
    rng = np.random.default_rng(0)
    kept = np.sort(rng.choice(2000, 1500, replace=False))
    times = pd.Timestamp("2026-01-05") + pd.to_timedelta(15 * kept, "min")
    late = kept >= 1000
    frame = pd.DataFrame({"unique_id": "a", "ds": times, "y": 1.0 * kept})
    with pytest.warns(SeriesWarning):
        index = index_of(frame[~late], frame[late], folder=tmp_path)
    asked: list[int] = []

    def watched(stored: Any, long: Any, spans: Any, **options: Any) -> Any:
        asked.append(sum(stop - start for start, stop in spans))
        return files.read_rows(stored, long, spans, **options)

    monkeypatch.setattr(rows, "read_rows", watched)
    for start in (0, 980, 1700):
        asked.clear()
        (values,) = rows.read_places(index, [Place(0, start, start + 40)])
        slots = np.arange(start, start + 40) + kept[0]
        expected = np.where(np.isin(slots, kept), slots, np.nan)
        np.testing.assert_array_equal(values, expected)
        assert sum(asked) <= 40 + 50


def test_keys_are_text_categories_or_integers(tmp_path: Path) -> None:
    for ids in (pd.Categorical(table()["unique_id"]), np.repeat([7, 3, 5], 30)):
        index = index_of(table(unique_id=ids), folder=tmp_path)
        assert index.keys == list(dict.fromkeys(ids.tolist()))


@pytest.mark.parametrize(
    "ids", [["a/b", "c d", "é=1"], [7, 3, -5], ["7", "007", "x"], ["7", "8", str(2**64)]]
)
def test_folders_name_series_as_engines_write_them(ids: list[Any], tmp_path: Path) -> None:
    frame = table(unique_id=np.repeat(np.array(ids, object), 30), region="north")
    frame.to_parquet(tmp_path, partition_cols=["region", "unique_id"], index=False)
    index = read_index(ParquetPanel(tmp_path), long=LongColumns())
    assert set(index.keys) == set(ids)
    for key, series in whole(index).items():
        rows = frame[frame["unique_id"] == key]
        np.testing.assert_array_equal(series, rows["y"])
        assert list(series.index) == list(rows["ds"])


def test_a_relative_path_names_the_series_that_the_full_one_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "unique_id=z"
    folder.mkdir()
    table().head(30)[["ds", "y"]].to_parquet(folder / "a.parquet", index=False)
    monkeypatch.chdir(folder)
    for path in (folder, ".", "a.parquet", "../unique_id=z/a.parquet"):
        assert read_index(ParquetPanel(path), long=LongColumns()).keys == ["z"]
    # The folder is no part of this path.
    (tmp_path / "b.parquet").write_bytes((folder / "a.parquet").read_bytes())
    with pytest.raises(SeriesError, match="no column 'unique_id'"):
        read_index(ParquetPanel(folder / "../b.parquet"), long=LongColumns())


def test_a_series_goes_on_from_month_9_to_month_10(tmp_path: Path) -> None:
    frame = table().assign(_month=[9] * 10 + [10] * 80, unique_id="a", ds=range(90))
    frame.to_parquet(tmp_path, partition_cols=["_month"], index=False)
    (series,) = whole(read_index(ParquetPanel(tmp_path), long=LongColumns())).values()
    np.testing.assert_array_equal(series, frame["y"])


def test_files_of_a_folder_are_taken_by_name_and_number(tmp_path: Path) -> None:
    names = ["a", "a1", "a01b", "a1b", "a2", "a10", "b", "1"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "part.parquet").touch()
    found = [path.parent.name for path in ParquetPanel(tmp_path).files()]
    assert found == ["1", "a", "a1", "a01b", "a1b", "a2", "a10", "b"]


def test_a_column_of_series_counts_more_than_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "unique_id=z"
    folder.mkdir()
    assert index_of(table(), folder=folder).keys == ["a", "b", "c"]


def test_folders_that_name_no_series_are_refused(tmp_path: Path) -> None:
    frame = table(unique_id=np.repeat(np.array(["a", None, "c"], object), 30))
    frame.to_parquet(tmp_path, partition_cols=["unique_id"], index=False)
    with pytest.raises(SeriesError, match=r"HIVE_DEFAULT_PARTITION.*rows that have no 'unique_id'"):
        read_index(ParquetPanel(tmp_path), long=LongColumns())


@pytest.mark.parametrize("kind", ["decimal", "float16", "categories", "bool"])
def test_readings_of_other_types_are_numbers(kind: str, tmp_path: Path) -> None:
    expected = np.arange(90.0) % 2
    plain = pa.array(expected)
    column = {
        "decimal": lambda: plain.cast(pa.decimal128(10, 2)),
        "float16": lambda: plain.cast(pa.float16()),
        "categories": plain.dictionary_encode,
        "bool": lambda: plain.cast(pa.bool_()),
    }[kind]()
    content = pa.Table.from_pandas(table(), preserve_index=False).set_column(2, "y", column)
    pq.write_table(content, tmp_path / "0.parquet")
    found = whole(read_index(ParquetPanel(tmp_path), long=LongColumns()))
    np.testing.assert_array_equal(np.concatenate([*found.values()]), expected)


def test_a_file_without_any_reading_goes_before_another(tmp_path: Path) -> None:
    early = table(y=None)
    late = table(ds=early["ds"] + pd.Timedelta("7h30min"))
    index = index_of(early, late, folder=tmp_path)
    assert index.lengths.tolist() == [60, 60, 60]
    assert [series.isna().sum() for series in whole(index).values()] == [30, 30, 30]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.dictionary(pa.int8(), pa.large_string())])
def test_names_of_other_text_types_are_text(kind: Any, tmp_path: Path) -> None:
    content = pa.Table.from_pandas(table(), preserve_index=False)
    ids = content["unique_id"].combine_chunks().cast(kind)
    pq.write_table(content.set_column(0, "unique_id", ids), tmp_path / "0.parquet")
    assert read_index(ParquetPanel(tmp_path), long=LongColumns()).keys == ["a", "b", "c"]


def test_names_are_of_one_type_in_all_files(tmp_path: Path) -> None:
    numbers = table(unique_id=np.repeat([1, 2, 3], 30))
    later = numbers.assign(ds=numbers["ds"] + pd.Timedelta("1D"))
    texts = later.assign(unique_id=later["unique_id"].astype(str))
    with pytest.raises(SeriesError, match=r"1.parquet has names .* are text, .*0.parquet integer"):
        index_of(numbers, texts, folder=tmp_path)


def test_what_engines_keep_in_a_folder_is_not_read(tmp_path: Path) -> None:
    spark = tmp_path / "table.parquet"
    for name in ("part-0.parquet", "_delta_log/0.parquet", "_temporary/0/a.parquet", ".x.parquet"):
        path = spark / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table().to_parquet(path, index=False)
    for folder in (tmp_path, spark):
        assert ParquetPanel(folder).files() == [spark / "part-0.parquet"]


def test_a_file_a_list_and_nested_folders_are_read_by_name(tmp_path: Path) -> None:
    parts = dict(list(table().groupby("unique_id")))
    paths = [tmp_path / "x" / "b.parquet", tmp_path / "a.parquet", tmp_path / "x" / "a.parquet"]
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "notes.txt").write_text("no data")
    for path, part in zip(paths, parts.values(), strict=True):
        part.to_parquet(path, index=False)
    long = LongColumns()
    assert read_index(ParquetPanel(tmp_path), long=long).keys == ["b", "c", "a"]
    assert read_index(ParquetPanel(paths), long=long).keys == ["a", "b", "c"]
    assert read_index(ParquetPanel(str(paths[1])), long=long).keys == ["b"]


def shuffled(frame: pd.DataFrame, *rows: int) -> pd.DataFrame:
    order = np.arange(len(frame))
    order[list(rows)] = order[list(reversed(rows))]
    return frame.iloc[order]


def at(row: int, column: str, value: Any, kind: Any = None) -> pd.DataFrame:
    frame = table()
    frame[column] = frame[column].astype(kind or frame[column].dtype)
    frame.loc[row, column] = value
    return frame


WRONG = [
    (table().rename(columns={"ds": "time"}), "0.parquet has no column 'ds', but unique_id, time"),
    (table(y="much"), "column 'y' has type (large_)?string, .* of floating, .*; store it as one"),
    (table(unique_id=0.5), "column 'unique_id' has type double, which is none of string"),
    (table(ds="2026"), "column 'ds' has type (large_)?string, which is none of timestamp, date"),
    (table().iloc[:0], r"0.parquet(` has no rows| column .unique_id. has type null)"),
    (at(31, "unique_id", None, object), "row 31 has no 'unique_id'"),
    (at(31, "ds", pd.NaT), "row 31 has no 'ds'"),
    (at(31, "y", np.inf), "series 'b', row 31: 'y' is inf; the fit needs finite float32"),
    (at(31, "y", 1e39), "series 'b', row 31: 'y' is 1e"),
    (shuffled(table(), 31, 32), "series 'b', row 32: 2026-01-05T00:15:00.* after 2026-01-05T00:30"),
    (at(31, "ds", table()["ds"][30]), "series 'b', row 31: has the time .* twice; keep one row"),
    (at(59, "ds", pd.Timestamp("2026-01-05 07:20")), "row 59: .* no whole number of steps of 15"),
    (at(59, "ds", pd.Timestamp("2096-01-05")), "row 59: .* after a gap of many times its len"),
    (shuffled(table(), 5, 80), "series 'a', row 6: .* not stand together"),
    (table(y=np.r_[np.zeros(60), np.full(30, np.nan)]), "series 'c' has no reading in column 'y'"),
    (
        table(ds=np.tile(pd.date_range("2026-01-01", periods=30, freq="MS"), 3)),
        "has a step of MS, which is not always as long",
    ),
    (
        table(
            ds=np.tile(
                pd.date_range("2026-01-01", periods=30, freq="D", tz="Europe/Berlin"), 3
            )
        ),
        "has a step of D in Europe/Berlin, which is not always as long; store days without a zone",
    ),
    (
        table(
            ds=np.r_[
                np.tile(pd.date_range("2026-01-04", periods=30, freq="W"), 2),
                pd.date_range("2026-01-05", periods=30, freq="7D"),
            ]
        ),
        "series 'c', row 60: it begins at 2026-01-05 .* bring all to one day of the week",
    ),
    (table(ds=0).groupby("unique_id").head(1).astype({"ds": "datetime64[us]"}), "step is unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "message"), WRONG)
@pytest.mark.parametrize("batch", [13, 2**16])
def test_errors_name_file_series_and_row(
    frame: pd.DataFrame,
    message: str,
    batch: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "BATCH", batch)
    with pytest.raises(SeriesError, match=message) as caught:
        index_of(frame, folder=tmp_path)
    assert "0.parquet" in str(caught.value)


def test_a_step_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BATCH", 1)
    hourly = table()[table()["ds"].dt.minute == 0]
    with pytest.raises(SeriesError, match="their step is unknown; give ParquetPanel"):
        index_of(hourly, folder=tmp_path)
    index = index_of(hourly, folder=tmp_path, freq="h")
    assert index.lengths.tolist() == [8, 8, 8]
    with pytest.warns(SeriesWarning, match="leave out 63 stamps in 3 of 3 series"):
        index = index_of(hourly, folder=tmp_path, freq="15min")
    assert index.lengths.tolist() == [29, 29, 29]
    with pytest.raises(SeriesError, match="no whole number of steps of 2h after"):
        index_of(hourly, folder=tmp_path, freq="2h")


@pytest.mark.parametrize("freq", ["hourly", "0h", "-1h"])
def test_a_step_that_is_none_is_refused(freq: str) -> None:
    with pytest.raises(ValueError, match=f"`freq` must be a step forward .* got '{freq}'"):
        ParquetPanel("data", freq=freq)


def test_counts_have_no_step_of_time(tmp_path: Path) -> None:
    with pytest.raises(SeriesError, match="integers as times, which have no step 'h'; leave"):
        index_of(table(ds=np.tile(np.arange(30), 3)), folder=tmp_path, freq="h")


def test_a_series_goes_on_in_later_files_alone(tmp_path: Path) -> None:
    frame = table()
    late = frame["ds"] >= "2026-01-05 05:00"
    index = index_of(frame[~late], frame[late], folder=tmp_path)
    assert index.lengths.tolist() == [30, 30, 30]
    with pytest.raises(SeriesError, match=r"1.parquet, series 'a', row 0: .*0.parquet; sort"):
        index_of(frame[late], frame[~late], folder=tmp_path)
    shifted = frame[late].assign(ds=frame["ds"] + pd.Timedelta("1min"))
    with pytest.raises(SeriesError, match=r"1.parquet, series 'a', row 0: .* whole number of step"):
        index_of(frame[~late], shifted, folder=tmp_path)
    coarse = frame[late].assign(ds=frame["ds"].astype("datetime64[ms]"))
    with pytest.raises(SeriesError, match=r"1.parquet has times in \('ms', None\) .* store all"):
        index_of(frame[~late], coarse, folder=tmp_path)


def test_readings_without_a_logarithm_are_named(tmp_path: Path) -> None:
    table().to_parquet(tmp_path / "0.parquet", index=False)
    with pytest.raises(
        SeriesError, match=r"series 'a', row 0: 'y' is 0.0; .* above 0 for its targ"
    ):
        read_index(ParquetPanel(tmp_path), long=LongColumns(), lowest=0.0)


def test_files_that_are_not_there_or_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no file {re.escape(str(tmp_path / 'no'))}"):
        ParquetPanel(tmp_path / "no").files()
    with pytest.raises(FileNotFoundError, match=r"no file \*.parquet in"):
        ParquetPanel(tmp_path).files()
    with pytest.raises(FileNotFoundError, match="`path` is an empty list"):
        ParquetPanel([]).files()
    (tmp_path / "text.parquet").write_text("no table, though it is long enough")
    with pytest.raises(SeriesError, match=r"text.parquet is no Parquet file, or is damaged"):
        read_index(ParquetPanel(tmp_path), long=LongColumns())


def test_a_file_that_is_damaged_within_is_named(tmp_path: Path) -> None:
    path = tmp_path / "0.parquet"
    table(y=np.random.default_rng(0).standard_normal(90)).to_parquet(path, index=False)
    content = bytearray(path.read_bytes())
    content[30:200] = bytes(170)
    path.write_bytes(content)
    with pytest.raises(SeriesError, match=r"0.parquet is no Parquet file, or is damaged"):
        read_index(ParquetPanel(tmp_path), long=LongColumns())


def test_a_file_that_changed_is_not_read_on(tmp_path: Path) -> None:
    index = index_of(table(), folder=tmp_path)
    table().iloc[:60].to_parquet(tmp_path / "0.parquet", index=False)
    with pytest.raises(SeriesError, match=r"0.parquet changed while it was read; fit again"):
        whole(index)

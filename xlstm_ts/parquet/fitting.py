"""A fit on Parquet files: the one in memory, but for where its windows come from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from xlstm_ts.calibration import MOST_FORECASTS, Calibration, calibrate
from xlstm_ts.compute import seeded
from xlstm_ts.config import Transform, lowest
from xlstm_ts.distribution import first_alone_warns, join_processes
from xlstm_ts.exceptions import SeriesError
from xlstm_ts.exogenous import Covariates, Exogenous, learn
from xlstm_ts.model import XLSTM
from xlstm_ts.panels import Floats, Outline, Panel
from xlstm_ts.parquet.index import Index
from xlstm_ts.parquet.panel import ParquetPanel
from xlstm_ts.parquet.predicting import AT_ONCE, forecasts_after, last_places, panel_of
from xlstm_ts.parquet.rows import read_places, read_series
from xlstm_ts.parquet.scan import read_index
from xlstm_ts.plans import plan_fit
from xlstm_ts.pools import BLOCKS, Part, Place, Stored
from xlstm_ts.statics import Static
from xlstm_ts.training import train
from xlstm_ts.transforms import transformed
from xlstm_ts.units import Units, find_units, usable_spread
from xlstm_ts.windows import Columns

if TYPE_CHECKING:
    from xlstm_ts.forecaster import XLSTMForecaster

# Readings of the longest series that tell the season where there are no times.
TELLING = 100_000


def fit_parquet(
    forecaster: XLSTMForecaster,
    panel: ParquetPanel,
    X: Exogenous | None = None,
    static: Static | None = None,
) -> XLSTMForecaster:
    """Fit a forecaster on series in files, and return it.

    Raises
    ------
    SeriesError
        Where the files cannot be used (see `read_index`), or are too short.
    ValueError
        Where a parameter is out of range.
    """
    if X is not None or static is not None:
        raise SeriesError("`X` and `static` do not go with Parquet files; fit a frame with them.")
    if forecaster.stateful:
        raise ValueError(
            "`stateful` goes along whole series, and those of Parquet files are in memory in part "
            "alone; fit a frame, or leave it out."
        )
    processes = join_processes(forecaster)
    transform = forecaster.target_transform
    # One reads all to know where it lies; then each reads its own series.
    index = processes.first(
        lambda: read_index(panel, long=forecaster._long_columns(), lowest=lowest(transform))
    )
    example = _example(index)
    covariates, _ = learn(
        example,
        None,
        None,
        known_future=forecaster.known_future,
        calendar=forecaster.calendar,
        long=index.long,
    )
    with first_alone_warns(forecaster):
        outline = Outline(
            lengths=index.lengths.tolist(), longest=example.longest, channels=example.channels
        )
        digest = np.frombuffer(index.digest, np.uint8).astype(np.float64)
        plan = plan_fit(forecaster, outline, covariates, data=[digest])
    reader = _Reader(
        index,
        covariates,
        n_train=plan.n_train,
        transform=transform,
        pool_rows=panel.pool_rows,
    )
    with seeded(forecaster.random_state, processes=processes) as generator:
        model = XLSTM(plan.model)
        model.covariates.set_units(*covariates.units(example, n_train=[len(example.longest)]))
        history = train(
            model.to(processes.device),
            Stored(
                lengths=outline.lengths,
                read=reader.read,
                pool_rows=panel.pool_rows,
                prepare=reader.find_units,
            ),
            n_train=plan.n_train,
            config=plan.training,
            generator=generator,
            processes=processes,
        )
    forecaster.model_ = model
    forecaster.covariates_ = covariates
    forecaster.history_ = history
    forecaster.context_length_ = plan.training.context_length
    forecaster.season_length_ = plan.season
    forecaster.channels_ = example.channels
    forecaster.pooled_ = True
    forecaster.context_, forecaster.calibration_ = processes.first(
        lambda: (
            _example(index, last=forecaster.context_length_),
            _calibrate(forecaster, index, plan.n_train),
        )
    )
    return forecaster


def _example(index: Index, *, last: int | None = None) -> Panel:
    """Return the longest series, its beginning or its last readings."""
    longest = int(index.lengths.argmax())
    place = Place(longest, 0, min(TELLING, int(index.lengths[longest])))
    if last is not None:
        (place,) = last_places(index, [longest], length=last)
    (series,) = read_series(index, [place])
    return panel_of({index.keys[longest]: series}, long=index.long, is_example=True)


class _Reader:
    """Standardises what is read by the units of its series, as `units.standardise` does."""

    def __init__(
        self,
        index: Index,
        covariates: Covariates,
        *,
        n_train: Sequence[int],
        transform: Transform,
        pool_rows: int,
    ) -> None:
        self.index, self.covariates = index, covariates
        self.transform: Transform = transform
        self.n_train, self.pool_rows, self.chunk = n_train, pool_rows, pool_rows // BLOCKS
        # Those of a series that is not trained on.
        self.center, self.spread = np.zeros(len(n_train)), np.ones(len(n_train))

    def read(self, places: Sequence[Place]) -> list[Part]:
        """Return readings and columns of places."""
        if self.covariates.columns:
            timed = read_series(self.index, places)
            parts = [(one.values, Columns.of(*self.covariates.parts(one))) for one in timed]
        else:  # times cost more than readings
            read = read_places(self.index, places)
            parts = [(values[:, None], Columns.none(len(values))) for values in read]
        return [
            (self._standardised(values, series=place.series), columns)
            for place, (values, columns) in zip(places, parts, strict=True)
        ]

    def _standardised(self, values: Floats, *, series: int) -> Tensor:
        units = Units(self.center[series], self.spread[series])
        return torch.as_tensor(units.standardise(transformed(values, self.transform))).float()

    def find_units(self, series: range) -> None:
        """Find level and spread of the training readings of some series, once."""
        if sum(self.n_train[n] for n in series) <= self.pool_rows:
            self.chunk = self.pool_rows  # all of them, as in memory
        for places in self._chunks(series):
            parts = read_places(self.index, places)
            if places[0].stop < self.n_train[places[0].series]:
                self._find_of_long(places[0], parts[0])
                continue
            for place, values in zip(places, parts, strict=True):
                found = find_units(transformed(values, self.transform)[:, None])
                self.center[place.series], self.spread[place.series] = (
                    part.item() for part in found
                )

    def _chunks(self, series: range) -> Iterator[list[Place]]:
        """Yield training readings: whole series together, or the first part of a long one."""
        places: list[Place] = []
        room = self.chunk
        for number in series:
            count = self.n_train[number]
            if count > room and places:
                yield places
                places, room = [], self.chunk
            if count > self.chunk:
                yield [Place(number, 0, self.chunk)]
            elif count:
                places.append(Place(number, 0, count))
                room -= count
        if places:
            yield places

    def _find_of_long(self, place: Place, values: Floats) -> None:
        """Join the moments of one part after the other: the same but for rounding."""
        number, count = place.series, self.n_train[place.series]
        moments = _moments(transformed(values, self.transform))
        for start in range(place.stop, count, self.chunk):
            part = Place(number, start, min(count, start + self.chunk))
            (values,) = read_places(self.index, [part])
            moments = _joined(moments, _moments(transformed(values, self.transform)))
        total, center, squares = moments
        spread = np.array(math.sqrt(squares / max(total, 1)))
        self.center[number] = center
        self.spread[number] = usable_spread(np.array(center), spread)


Moments = tuple[int, float, float]


def _moments(values: Floats) -> Moments:
    """Return the count of readings, their mean, and the sum of squares around it."""
    there = values[~np.isnan(values)]
    center = float(there.mean()) if len(there) else 0.0
    return len(there), center, float(((there - center) ** 2).sum())


def _joined(one: Moments, other: Moments) -> Moments:
    """Return the moments of two parts together (Chan, Golub and LeVeque 1979)."""
    total = one[0] + other[0]
    if not total:
        return one
    away = other[1] - one[1]
    center = one[1] + away * other[0] / total
    return total, center, one[2] + other[2] + away**2 * one[0] * other[0] / total


def _calibrate(forecaster: XLSTMForecaster, index: Index, n_train: Sequence[int]) -> Calibration:
    """Return what `calibrate_tails` does; of more than a thousand series, of some of them."""
    config = forecaster.model_.config
    places = _origins(index, n_train, forecaster.context_length_, config.horizon)
    shape = (0, config.horizon, 1)
    forecasts, truths = [np.empty((*shape, len(config.quantiles)))], [np.empty(shape)]
    for start in range(0, len(places), AT_ONCE):
        parts = read_series(index, places[start : start + AT_ONCE])
        forecasts.append(forecasts_after(forecaster, parts, told=config.horizon))
        truths.append(np.stack([one.values[-config.horizon :] for one in parts]))
    return calibrate(np.concatenate(forecasts), np.concatenate(truths), median=config.median)


def _origins(
    index: Index, n_train: Sequence[int], context_length: int, horizon: int
) -> list[Place]:
    """Return contexts and horizons in the tails."""
    start = np.asarray(n_train)
    spans = np.where(start > 0, np.maximum(0, index.lengths - horizon + 1 - start), 0)
    stride = max(1, math.ceil(spans.sum() / MOST_FORECASTS))
    counts = -(-spans // stride)
    series = np.repeat(np.arange(len(start)), counts)
    number = np.arange(len(series)) - np.repeat(counts.cumsum() - counts, counts)
    origins = start[series] + number * stride
    if len(series) > 2 * MOST_FORECASTS:
        some = slice(None, None, math.ceil(len(series) / MOST_FORECASTS))
        series, origins = series[some], origins[some]
    return [
        Place(n, max(0, origin - context_length), origin + horizon)
        for n, origin in zip(series.tolist(), origins.tolist(), strict=True)
    ]

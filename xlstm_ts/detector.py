"""The detector: series in, p-values and events out, in scikit-learn's manner."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from xlstm_ts import detector_files
from xlstm_ts.anomaly.budgets import Contamination, find_alpha
from xlstm_ts.anomaly.events import Policy
from xlstm_ts.anomaly.host import AnomalyHost
from xlstm_ts.anomaly.settings import HostConfig
from xlstm_ts.anomaly.verdicts import Trace
from xlstm_ts.config import Channels
from xlstm_ts.exceptions import SeriesWarning
from xlstm_ts.forecaster import XLSTMForecaster
from xlstm_ts.frames import read_panel
from xlstm_ts.incidents import by_rows, events_frame, explanation, only_series
from xlstm_ts.innovations import AnomalyStream, fit_innovations, judge_panel
from xlstm_ts.panels import Floats, Panel, TimeSeries
from xlstm_ts.steps import step_seconds

Series = ArrayLike | pd.Series | pd.DataFrame
Kind = Literal["joint", "point", "range", "level", "recent", "relation", "slow"]


class XLSTMAnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Find readings and stretches that the series before them did not foretell.

    An online autoregression follows each channel; an xLSTM forecasts what that gets wrong, from the
    errors and the readings of all channels. A reading is held against that forecast, against the
    readings of training, against the last ones and against the other channels. How rare the
    strangest of these is follows from tails that go on learning, and slow feedback keeps the alarms
    at the budget. Beside it the running level of each channel is held against that of training, and
    a value that does not change is noticed. Everything is causal and takes one reading at a time.

    Parameters
    ----------
    alarms_per_day : float, optional
        The budget of alarms, by the step of the index of `X`.
    alpha : float, optional
        The budget as the share of readings in alarm.
    contamination : float or "auto", default="auto"
        The same under scikit-learn's name: the share to expect in the long run, not the share of
        the training part. "auto" takes 1e-4, or one alarm a day where that is more, up to 1e-2.
        Give one of the three at most; `set_budget` changes it without a fit.
    use_model : bool, default=True
        Whether there is an xLSTM behind the online autoregression.
    channels : {"independent", "mixed"}, default="mixed"
        Whether the xLSTM has shared weights for the errors of all channels, each forecast from its
        own, or forecasts all from all. It sees the readings of all in both.
    blocks : str, default="m"
        Its stack: "m" is an mLSTM, "s" an sLSTM block.
    d_model, n_heads : int, default=32, 4
        Its width, and heads of each cell.
    context_length : int, default=128
        Readings of its training windows.
    max_steps, batch_size : int, default=300, 32
        Steps of the optimiser, and windows in each.
    learning_rate : float, default=3e-3
        Of AdamW with warm-up and cosine.
    validation_fraction : float, default=0.2
        Share of the readings, from the end, on which the best weights are chosen.
    n_lags : int, default=12
        Last readings that the autoregression sees.
    half_life : float, default=500
        Readings after which one weighs half in the running units of errors.
    span, slow_span : int, default=10, 20
        Readings of the range score, and of the running level.
    warm_up : int, default=100
        Readings of a channel at the start of each series that raise no alarm.
    quiet, cooldown : int, default=20, 150
        Readings without alarm that close an event, and those after them in which an alarm opens it
        again, unless it has a cause of its own (`xlstm_ts.anomaly.events.EventMachine`).
    n_rebase : int, default=1000
        Readings of a level shift after which its level is the new normal.
    policy : {"auto", "hold"}, default="auto"
        Whether that happens by itself, or the event stays open until `AnomalyStream.acknowledge`.
    device : str, default="auto"
        A torch device for the training; "auto" takes CUDA where there is one.
    random_state : int, RandomState or None, default=None
        Makes a fit repeatable.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    host_ : AnomalyHost
        The stages around the model, as training left them.
    forecaster_ : XLSTMForecaster or None
        The model of the innovations.
    alpha_, offset_ : float
        The budget as a share of readings, and log10 of it.
    channels_ : tuple of str
        Names of the channels.

    Notes
    -----
    Each call begins a new stream: state is that of the end of training, and the first `warm_up`
    readings have a p-value of 1. One-step errors say little about the shape of waveforms, as of an
    ECG. The rate is kept in the long run and on the whole, not at each hour of the day.

    References
    ----------
    A. Siffer et al., "Anomaly Detection in Streams with Extreme Value Theory", KDD 2017.
    I. Gibbs and E. Candes, "Adaptive Conformal Inference Under Distribution Shift", 2021,
    arXiv:2106.00170.

    Examples
    --------
    >>> from xlstm_ts import XLSTMAnomalyDetector
    >>> from xlstm_ts.datasets.synthetic import make_sensor_stream
    >>> readings = make_sensor_stream(2000, random_state=0).readings
    >>> detector = XLSTMAnomalyDetector(alpha=1e-3, max_steps=20, random_state=0)
    >>> events = detector.fit(readings.iloc[:1000]).detect_events(readings.iloc[1000:])
    >>> list(events.columns[:4])
    ['start', 'end', 'peak', 'kind']
    """

    def __init__(
        self,
        *,
        alarms_per_day: float | None = None,
        alpha: float | None = None,
        contamination: Contamination = "auto",
        use_model: bool = True,
        channels: Channels = "mixed",
        blocks: str = "m",
        d_model: int = 32,
        n_heads: int = 4,
        context_length: int = 128,
        max_steps: int = 300,
        batch_size: int = 32,
        learning_rate: float = 3e-3,
        validation_fraction: float = 0.2,
        n_lags: int = 12,
        half_life: float = 500.0,
        span: int = 10,
        slow_span: int = 20,
        warm_up: int = 100,
        quiet: int = 20,
        cooldown: int = 150,
        n_rebase: int = 1000,
        policy: Policy = "auto",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.alarms_per_day = alarms_per_day
        self.alpha = alpha
        self.contamination: Contamination = contamination
        self.use_model = use_model
        self.channels = channels
        self.blocks = blocks
        self.d_model = d_model
        self.n_heads = n_heads
        self.context_length = context_length
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.n_lags = n_lags
        self.half_life = half_life
        self.span = span
        self.slow_span = slow_span
        self.warm_up = warm_up
        self.quiet = quiet
        self.cooldown = cooldown
        self.n_rebase = n_rebase
        self.policy = policy
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Series, y: object = None) -> XLSTMAnomalyDetector:
        """Learn what is usual from one series, or from several of one kind.

        They may hold a few anomalies.

        Parameters
        ----------
        X : array (T,), (T, C) or (S, T, C), Series or DataFrame
            Readings in the order of time, with one step throughout; NaN is missing. Several series,
            as runs of a machine or machines alike, come as `read_panel` takes them: what is usual
            is then what is usual in all of them together.
        y : ignored
            For scikit-learn.

        Returns
        -------
        XLSTMAnomalyDetector
            The detector itself.

        Raises
        ------
        SeriesError
            Where `X` cannot be used (see `xlstm_ts.frames.read_panel`) or is too short.
        ValueError
            Where a parameter is out of range, or there is more than one budget.
        """
        panel = read_panel(X, name="X")
        alpha = self._alpha(panel.longest.index)
        names = set(HostConfig.__dataclass_fields__) & set(self.get_params())
        host = AnomalyHost(HostConfig(**{name: getattr(self, name) for name in names}), alpha=alpha)
        innovations = host.start([series.values for series in panel])
        forecaster, quantiles = None, None
        if self.use_model:
            forecaster, quantiles = fit_innovations(self, innovations, panel)
        self.host_ = host.finish(innovations, quantiles)
        self.forecaster_: XLSTMForecaster | None = forecaster
        self.channels_ = panel.channels
        self.known_ = panel.alone().last(2)
        self._spend(alpha)
        return self

    def set_budget(
        self,
        *,
        alarms_per_day: float | None = None,
        alpha: float | None = None,
        contamination: Contamination | None = None,
    ) -> XLSTMAnomalyDetector:
        """Change the budget of alarms, one of those that the constructor takes; no new fit."""
        check_is_fitted(self)
        share = find_alpha(
            alarms_per_day=alarms_per_day,
            alpha=alpha,
            contamination=contamination,
            seconds=step_seconds(self.known_.longest.index),
        )
        usual = "auto" if contamination is None else contamination
        self.set_params(alarms_per_day=alarms_per_day, alpha=alpha, contamination=usual)
        self._spend(share)
        return self

    def trace(self, X: Series) -> Trace:
        """Return all that the detector says of each reading of one series; nothing is learnt.

        Stamps that are left out of the index of `X` are readings too, missing ones.
        """
        return self._judge([only_series(self._read(X))])[0]

    def judged(self, X: Series) -> tuple[pd.DataFrame, Trace]:
        """Return one series as a frame, one column a channel, and what `trace` says of it."""
        series = only_series(self._read(X))
        frame = pd.DataFrame(series.values, series.index, list(self.channels_))
        return frame, self._judge([series])[0]

    def anomaly_score(self, X: Series, *, kind: Kind = "joint") -> Floats:
        """Return how abnormal each row of `X` is: high is abnormal.

        `(T,)`, or `(S, T)` of an array of several series.

        Parameters
        ----------
        X : array, Series or DataFrame
            Readings with the channels and the step of the training series.
        kind : {"joint", "point", "range", "level", "recent", "relation", "slow"}, default="joint"
            -log10 p of the reading, which alarms go by and which is under the feedback of the rate;
            of what it comes from (see `Verdict`): the reading against its forecast, the stretch of
            such errors, the reading against those of training, against the last ones and against
            the other channels; or the running level in units of its limit.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"`kind` must be one of {', '.join(get_args(Kind))}, got {kind!r}.")
        panel, name = self._read(X), "scores" if kind == "joint" else f"{kind}_scores"
        return by_rows(X, panel, [getattr(one, name) for one in self._judge(panel)])

    def score_samples(self, X: Series) -> Floats:
        """Return log10 p of each reading: low is abnormal, 0 where there is no evidence.

        `(T,)`, or `(S, T)` of an array of several series.
        """
        return -self.anomaly_score(X)

    def decision_function(self, X: Series) -> Floats:
        """Return `score_samples` less `offset_`: below 0 is abnormal."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Series) -> NDArray[np.int64]:
        """Return -1 for readings in alarm by their score, 1 for the others.

        What the level and stuck sensors raise is in `detect_events`.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def detect_events(self, X: Series) -> pd.DataFrame:
        """Return the events, one row each.

        Parameters
        ----------
        X : array, Series or DataFrame
            Readings with the channels and the step of the training series.

        Returns
        -------
        DataFrame
            Columns `start`, `end` and `peak` (times, or numbers of rows), `kind` ("spike",
            "deviation", "level_shift", "drift", "stuck"), `score` (-log10 p at the peak),
            `is_open`, `channels` (those that matter, the first most), `details` for `explain`. Of
            several series the first column, `series`, has their names.
        """
        panel = self._read(X)
        return events_frame(self._judge(panel), panel)

    def explain(self, event: Any) -> pd.DataFrame:
        """Return what the channels have to do with an event, the most first.

        Parameters
        ----------
        event : row of `detect_events`
            As `events.iloc[0]` or `next(events.itertuples())` gives it, also from a CSV file.

        Returns
        -------
        DataFrame
            Index: channels. Columns: `share` (they sum to 1), and at the peak, or the end of a
            stuck sensor, `reading`, `expected` and `z`, the error in units of those before.
        """
        return explanation(event)

    def stream(self) -> AnomalyStream:
        """Return a stream that has seen nothing: `stream.step(reading)` takes one at a time."""
        check_is_fitted(self)
        model = None if self.forecaster_ is None else self.forecaster_.model_
        return AnomalyStream(self.host_.fresh(), model, channels=self.channels_)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one file: numpy arrays and JSON, no pickle.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SeriesError
            Where the name of a channel would not come back the same.
        """
        check_is_fitted(self)
        detector_files.save(Path(path), self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> XLSTMAnomalyDetector:
        """Read a detector that `save` wrote; it gives the same numbers, on the CPU."""
        detector = cls()
        detector_files.load(Path(path), detector)
        return detector

    def _read(self, X: Series) -> Panel:
        check_is_fitted(self)
        panel = read_panel(X, name="X", known=self.known_, may_be_silent=True)
        shortest = min(len(one) for one in panel)
        if all(np.isnan(one.values).all() for one in panel):
            warnings.warn(
                "`X` has no reading, only NaN: nothing is judged.", SeriesWarning, stacklevel=3
            )
        elif shortest <= self.host_.config.warm_up:
            one = "`X`" if panel.is_single else "A series of `X`"
            warnings.warn(
                f"{one} has {shortest} readings, and none of the first "
                f"{self.host_.config.warm_up} (`warm_up`) of a series is judged: put readings of "
                "before in front of them, or fit with a shorter `warm_up`.",
                SeriesWarning,
                stacklevel=3,
            )
        return panel

    def _judge(self, panel: Iterable[TimeSeries]) -> list[Trace]:
        return judge_panel(self.host_, self.forecaster_, panel)

    def _alpha(self, index: pd.Index[Any]) -> float:
        is_given = self.alarms_per_day is not None or self.alpha is not None
        return find_alpha(
            alarms_per_day=self.alarms_per_day,
            alpha=self.alpha,
            contamination=None if is_given and self.contamination == "auto" else self.contamination,
            seconds=step_seconds(index),
        )

    def _spend(self, alpha: float) -> None:
        self.alpha_, self.offset_ = alpha, math.log10(alpha)
        self.host_.alpha = alpha

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

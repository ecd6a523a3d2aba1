"""Columns of a frame of Spark: what they must be, and how workers and users call them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import Contract
from xlstm_ts.shards import KEY, MOMENT, VALUE, Scoring

NEVER = -(2**63)  # no time: what numpy takes for none
# Workers read times of a wall clock into nanoseconds: others would end the query, and are no time.
HELD = ("timestamp_ntz'1678-01-01'", "timestamp_ntz'2262-01-01'")
GIVEN = (
    "channel STRING, value DOUBLE, levels ARRAY<FLOAT>, alarm STRING, bound DOUBLE, error STRING"
)
NAMES = ("channel", "value", "forecast", "quantiles", "alarm", "bound", "error")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The columns of a frame that matter.

    Attributes
    ----------
    names : tuple of str
        Columns of the key.
    kinds : tuple of DataType
        Their types; workers get texts, among which null is no number.
    time : str
        Column of the time.
    clock : DataType
        Its type. An instant (TIMESTAMP) goes to workers as microseconds of UTC: as a time pandas
        would read it by the clock of the session, which goes back once a year.
    values : tuple of str
        Columns of the readings.
    """

    names: tuple[str, ...]
    kinds: tuple[T.DataType, ...]
    time: str
    clock: T.DataType
    values: tuple[str, ...]

    @property
    def is_instant(self) -> bool:
        """Whether times are instants, and not those of a clock on a wall."""
        return isinstance(self.clock, T.TimestampType)

    @classmethod
    def of(
        cls, df: DataFrame, *, key: str | Sequence[str], time: str, value: str | Sequence[str]
    ) -> Table:
        """Look at the columns of a frame."""
        names, values = (
            (given,) if isinstance(given, str) else (*given,) for given in (key, value)
        )
        for called, given, kinds in (
            ("key", names, (T.StringType, T.IntegralType)),
            ("time", (time,), (T.TimestampType, T.TimestampNTZType, T.DateType)),
            ("value", values, (T.NumericType,)),
        ):
            if not given:
                raise ValueError(f"`{called}` names no column.")
            for name in given:
                _check_column(df, name, called=called, kinds=kinds)
        result = [name.lower() for name in (*names, time, *NAMES)]  # Spark takes kW for kw
        if twice := [name for name in (*names, time) if result.count(name.lower()) > 1]:
            raise ValueError(f"The result has another column {twice[0]}: rename that of `df`.")
        return cls(
            names=names,
            kinds=tuple(df.schema[name].dataType for name in names),
            time=time,
            clock=df.schema[time].dataType,
            values=values,
        )

    def scoring(
        self,
        model: str | os.PathLike[str],
        *,
        margin: float | None,
        expire_after: timedelta | None,
    ) -> Scoring:
        """Return how the readings of the frame are served by a model."""
        scoring = Scoring.from_file(
            model, is_instant=self.is_instant, margin=margin, expire_after=expire_after
        )
        scoring.serve()  # refuses here, not in a worker, what cannot be served
        contract = scoring.model().contract
        _check_contract(contract, is_instant=self.is_instant)
        channels = contract.channels
        if len(self.values) != len(channels):
            raise ValueError(
                f"`value` must name a column for each channel of the model, {', '.join(channels)}; "
                f"got {', '.join(self.values)}."
            )
        return scoring

    @property
    def plain_keys(self) -> list[str]:
        """What workers call the columns of the key."""
        return [f"{KEY}{place}" for place in range(len(self.names))]

    def plain(self, df: DataFrame, channels: Sequence[str]) -> DataFrame:
        """Return the columns as workers read them, the readings in the order of the channels."""
        values = channels if {*self.values} == {*channels} else self.values
        time = _column(self.time)
        if self.is_instant:
            moment = F.coalesce(F.unix_micros(time), F.lit(NEVER))
        else:
            wall = time.cast("timestamp_ntz")
            moment = F.when(wall.between(*map(F.expr, HELD)), wall)
        pairs = zip(self.names, self.plain_keys, strict=True)
        return df.select(
            *(_column(name).cast("string").alias(plain) for name, plain in pairs),
            moment.alias(MOMENT),
            *(_column(v).cast("double").alias(f"{VALUE}{i}") for i, v in enumerate(values)),
        )

    @property
    def schema(self) -> str:
        """The columns that the workers give back."""
        keys = ", ".join(f"{name} STRING" for name in self.plain_keys)
        return f"{keys}, {MOMENT} {'BIGINT' if self.is_instant else 'TIMESTAMP_NTZ'}, {GIVEN}"

    def named(self, given: DataFrame, contract: Contract) -> DataFrame:
        """Return what the workers gave, with the names and types of the frame."""
        levels, horizon = F.col("levels"), contract.horizon
        starts = range(1, len(contract.quantiles) * horizon, horizon)
        quantiles = [F.slice(levels, start, horizon) for start in starts]
        named = {
            "forecast": quantiles[contract.median],
            "quantiles": F.when(levels.isNotNull(), F.array(*quantiles)),
        }
        moment = F.col(MOMENT)
        if self.is_instant:
            moment = F.when(moment != NEVER, F.timestamp_micros(moment))
        keys = zip(self.plain_keys, self.kinds, self.names, strict=True)
        return given.select(
            *(F.col(plain).cast(kind).alias(name) for plain, kind, name in keys),
            moment.cast(self.clock).alias(self.time),
            *(named.get(name, F.col(name)).alias(name) for name in NAMES),
        )


def _check_column(
    df: DataFrame, name: str, *, called: str, kinds: tuple[type[T.DataType], ...]
) -> None:
    if name not in df.columns:
        raise ValueError(f"`{called}` names {name!r}; `df` has {', '.join(df.columns)}.")
    kind = df.schema[name].dataType
    if not isinstance(kind, kinds):
        wanted = " or ".join(one.__name__.removesuffix("Type").lower() for one in kinds)
        raise ValueError(
            f"`{called}` {name!r} is {kind.simpleString()}, not {wanted}: cast it in `df` first."
        )


def _check_contract(contract: Contract, *, is_instant: bool) -> None:
    given = [column.name for column in contract.columns if column.role != "cyclic"]
    if given:
        raise StreamError(
            f"The model takes {', '.join(given)} beside its readings, which Spark does not hand on "
            "yet: fit one without."
        )
    if contract.columns and contract.seconds is None:
        raise StreamError("The model asks for the times of the next readings: fit one without.")
    if contract.columns and contract.zone is None and is_instant:
        raise StreamError(
            "The model goes by the calendar, and was fit on times without a zone: give `time` as "
            "TIMESTAMP_NTZ, by the clock of the fit."
        )


def _column(name: str) -> Column:
    quoted = name.replace("`", "``")
    return F.col(f"`{quoted}`")

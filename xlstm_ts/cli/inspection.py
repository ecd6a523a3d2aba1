"""What a step graph, or a detector, takes and gives, in words and as JSON."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from xlstm_ts.cli.feeds import FUTURE, TIME
from xlstm_ts.columns import Column
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.detectors import DetectorModel, open_model

DAY = 86_400  # seconds
NUMBER = 4  # bytes of a float32
TRANSFORMS = {"log": "the logarithm of y", "log1p": "the logarithm of 1 + y"}
EXAMPLE_TIME = "2026-01-31T12:00"
TOLD = "time       may be told with each reading: stamps that are left out are then filled"


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what there is to know of a file, as JSON has it.

    Raises
    ------
    StreamError
        Where the file is none.
    """
    model = open_model(path)
    contract = model.contract
    units = contract.units or [None] * len(contract.channels)
    facts = {
        "file": os.fspath(path),
        "bytes": Path(path).stat().st_size,
        "kind": "detector" if isinstance(model, DetectorModel) else "forecaster",
        "channels": [
            {"name": name, "unit": unit}
            for name, unit in zip(contract.channels, units, strict=True)
        ],
        "step": contract.step,
        "seconds": contract.seconds,
        "zone": contract.zone,
    }
    own = _budget(model) if isinstance(model, DetectorModel) else _forecasts(contract)
    return {
        **facts,
        **own,
        "state": {
            "arrays": len(contract.state),
            "bytes": NUMBER * sum(math.prod(array.shape) for array in contract.state),
        },
        "weights_hash": contract.weights_hash,
        "library_version": contract.library_version,
        "contract_version": contract.version,
        "example": example(contract),
    }


def _forecasts(contract: Contract) -> dict[str, Any]:
    return {
        "horizon": contract.horizon,
        "quantiles": list(contract.quantiles),
        "transform": contract.transform,
        "covariates": {
            "past": _named(contract, "past"),
            "known_ahead": _named(contract, "known"),
            "static": _statics(contract),
            "calendar": _named(contract, "cyclic"),
        },
    }


def _budget(model: DetectorModel) -> dict[str, Any]:
    seconds = model.contract.seconds
    return {
        "alpha": model.alpha,
        "alarms_per_day": None if seconds is None else model.alpha * DAY / seconds,
        "warm_up": model.warm_up,
    }


def example(contract: Contract) -> dict[str, Any]:
    """Return a reading that the model takes: what a line of JSON holds."""
    known, fields = _named(contract, "known"), _named(contract, "cyclic")
    numbers = [*contract.channels, *_named(contract, "past"), *known]
    record: dict[str, Any] = {}
    if fields and contract.step is not None:
        record[TIME] = EXAMPLE_TIME
        if contract.seconds is None:
            record[TIME] = [f"{2026 + year}-01-31" for year in range(contract.horizon + 1)]
    record |= dict.fromkeys(numbers, 0.5)
    if known:
        record[FUTURE] = {name: [0.5] * contract.horizon for name in known}
    return record


def in_words(facts: dict[str, Any]) -> list[str]:
    """Return lines that say the same to a person."""
    is_detector = facts["kind"] == "detector"
    return [
        f"file       {facts['file']}, {facts['bytes'] / 1024:.0f} kB, a {facts['kind']}",
        f"takes      one reading at a time of {_channels(facts)}; null or NaN is missing",
        f"step       {_step(facts)}",
        *(_words_of_detector(facts) if is_detector else _words_of_forecaster(facts)),
        f"written by xlstm-ts {facts['library_version']}, contract {facts['contract_version']}, "
        f"weights {facts['weights_hash'] or 'unknown'}",
        f"feed it    {_feed(facts)}",
    ]


def _words_of_detector(facts: dict[str, Any]) -> list[str]:
    per_day = facts["alarms_per_day"]
    budget = "" if per_day is None else f", {per_day:.3g} readings a day"
    lines = [
        f"budget     a share of {facts['alpha']:.3g} of usual readings is in alarm{budget}",
        f"warm-up    the first {facts['warm_up']} readings are not judged",
    ]
    return [*([TOLD] if facts["seconds"] is not None else []), *lines]


def _words_of_forecaster(facts: dict[str, Any]) -> list[str]:
    beside, lines = facts["covariates"], []
    if beside["past"] or beside["known_ahead"]:
        lines.append(
            f"beside it  {', '.join([*beside['past'], *beside['known_ahead']])}, at the same time"
        )
    if beside["known_ahead"]:
        lines.append(
            f"ahead      {', '.join(beside['known_ahead'])} at each of the next "
            f"{facts['horizon']} times, under {FUTURE!r}"
        )
    if beside["calendar"]:
        lines.append(f"time       needed with each reading, for {', '.join(beside['calendar'])}")
    elif facts["seconds"] is not None:
        lines.append(TOLD)
    if beside["static"]:
        lines.append(f"static     {_static_words(beside['static'])}; given once for each stream")
    levels = ", ".join(f"{level:g}" for level in facts["quantiles"])
    lines.append(f"gives      the next {facts['horizon']} readings at the levels {levels}")
    if facts["transform"]:
        lines.append(f"inside     it forecasts {TRANSFORMS[facts['transform']]}")
    lines.append(f"state      {facts['state']['bytes']} bytes a stream, however long it runs")
    return lines


def _named(contract: Contract, role: str) -> list[str]:
    return [column.name for column in contract.columns if column.role == role]


def _statics(contract: Contract) -> dict[str, list[str] | None]:
    """Return the categories of each static column; None for those that are numbers."""
    columns = [column for column in contract.columns if column.role == "static"]
    return {column.name: _categories(columns, column.name) for column in columns}


def _categories(columns: list[Column], name: str) -> list[str] | None:
    found = [one.category for one in columns if one.name == name and one.category is not None]
    return found or None


def _channels(facts: dict[str, Any]) -> str:
    return ", ".join(
        f"{channel['name']} in {channel['unit']}" if channel["unit"] else channel["name"]
        for channel in facts["channels"]
    )


def _step(facts: dict[str, Any]) -> str:
    if facts["step"] is None:
        return "readings are counted, no time is needed"
    zone = ""
    if facts["zone"]:
        zone = f", by the clock of {facts['zone']}; a time with another offset is converted to that"
    return f"{facts['step']!r} between two readings{zone}"


def _static_words(statics: dict[str, list[str] | None]) -> str:
    return "; ".join(
        f"{name}, one of {', '.join(categories)}" if categories else f"{name}, a number"
        for name, categories in statics.items()
    )


def _feed(facts: dict[str, Any]) -> str:
    return json.dumps(facts["example"])

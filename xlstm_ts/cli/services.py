"""What a file is served by: forecasts of a step graph, or verdicts of a detector."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from xlstm_ts.cli.verdicts import csv_verdicts, csv_verdicts_header, json_verdicts
from xlstm_ts.cli.writers import csv_header, csv_writer, json_writer
from xlstm_ts.export.contract import Contract
from xlstm_ts.streaming.detectors import DetectorModel, open_model
from xlstm_ts.streaming.serving import Served, Server
from xlstm_ts.streaming.watching import DetectorServer, Judged

Outcome = Served | Judged
Writer = Callable[[Any, int | None], bytes]  # an outcome, and the line of the input of its reading


class Service(NamedTuple):
    """What readings are served by.

    Attributes
    ----------
    contract : Contract
        What a reading is.
    server : Server or DetectorServer
        Takes readings.
    has_alerts : bool
        Whether readings can be out of the ordinary.
    to_json, to_csv : callable
        Write what a reading gave.
    csv_header : bytes
        The line before all that `to_csv` writes.
    """

    contract: Contract
    server: Server | DetectorServer
    has_alerts: bool
    to_json: Writer
    to_csv: Writer
    csv_header: bytes


def open_service(
    path: str | os.PathLike[str],
    *,
    is_keyed: bool,
    static: Mapping[str, Any] | None,
    margin: float | None,
    expire_after: timedelta | None,
    only_alerts: bool,
) -> Service:
    """Load a file, whichever it is.

    Raises
    ------
    ValueError
        Where an option is of no use to it.
    """
    model = open_model(path)
    if isinstance(model, DetectorModel):
        if margin is not None or static:
            raise ValueError(
                "A detector alarms by the budget that it was fitted with, and looks at nothing "
                "static: leave out --alert-outside and --static."
            )
        return Service(
            contract=model.contract,
            server=DetectorServer(model, is_keyed=is_keyed, expire_after=expire_after),
            has_alerts=True,
            to_json=json_verdicts(model.channels),
            to_csv=csv_verdicts(model.channels, is_keyed=is_keyed),
            csv_header=csv_verdicts_header(is_keyed=is_keyed),
        )
    has_alerts = margin is not None
    if only_alerts and not has_alerts:
        raise ValueError("--only-alerts needs a rule: give --alert-outside as well.")
    contract = model.contract
    return Service(
        contract=contract,
        server=Server(
            model, is_keyed=is_keyed, static=static, margin=margin, expire_after=expire_after
        ),
        has_alerts=has_alerts,
        to_json=json_writer(contract, has_alerts=has_alerts),
        to_csv=csv_writer(contract, is_keyed=is_keyed, has_alerts=has_alerts),
        csv_header=csv_header(contract, is_keyed=is_keyed, has_alerts=has_alerts),
    )

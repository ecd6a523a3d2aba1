"""Anomaly detection beside the detectors of the field: servers, a valve, faults, cost and rates.

`python benchmarks/anomaly.py`: one run and one setting for all files, nothing tuned on a label;
but that the rules of NAB give each detector the threshold that suits it. Every method is causal.
Rivals stand behind the calibration and the events of the detector, but for their alarms in skab,
which go by a quantile of training. Points are never adjusted.

| data | trained on | judged by |
|---|---|---|
| asd: 6 servers of 19 metrics | 30 days | VUS-PR of TSB-AD; channels of each event |
| nab: 7 series of a known cause | 15 %, 750 readings at most | the standard score |
| skab: 16 runs in which a valve closes | 400 seconds | F1 and false alarms at each second |
| faults: 8 machines, 4 pairs of sensors | 16 days without a fault | share found, and delay |
| cost | | a verdict of a stream / a forecast in it |
| rates: 5 generated streams | 4,000 readings | false alarms / budget, of the host and the graph |

VUS-PR is computed by TSB-AD's own code, which asks for an old numpy but does without:
`pip install --no-deps TSB-AD==1.5`. One thread: asd takes three minutes, nab one, skab three,
faults and rates four; a quarter with `--quick`.
"""

from __future__ import annotations

import argparse
import sys
import time

import pandas as pd
import torch
from _cost import RATIO, cost_figures
from _generated import PAIR
from _methods import CHAINS, DETECTORS, RIVALS
from _protocols import (
    F1,
    FALSE_ALARMS,
    HIT_RATE,
    STANDARD,
    TOP_1,
    VUS,
    Figures,
    judge_asd,
    judge_faults,
    judge_nab,
    judge_skab,
)
from _rates import rate_figures
from _report import Report

JUDGES = {"asd": judge_asd, "nab": judge_nab, "skab": judge_skab, "faults": judge_faults}
COST, COST_RATIO = "cost", 1.3
RATES = "rates"
# What the detector has to reach, as `most` or `least` of Report.add.
BARS = {
    "asd": {HIT_RATE: {"least": 0.80}, TOP_1: {"least": 0.86}},
    "nab": {},
    "skab": {F1: {"least": 0.765}, FALSE_ALARMS: {"most": 0.2}},
    "faults": {f"{PAIR}, found": {"least": 0.5}},
}
# Times the best of the rivals in this run.
AHEAD = {"asd": (VUS, 1.0), "nab": (STANDARD, 1.1)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = [*JUDGES, COST, RATES]
    parser.add_argument("--data", nargs="+", default=everything, choices=everything)
    parser.add_argument("--quick", action="store_true", help="a quarter of the files, no bars")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report()
    for data in options.data:
        if data == COST:
            _cost(report, quick=options.quick)
        elif data == RATES:
            for figure, value in rate_figures(quick=options.quick).items():
                report.add(f"rates, {figure}", value)
        else:
            _compare(report, data, quick=options.quick)
    return report.finish(check=options.check)


def _cost(report: Report, *, quick: bool) -> None:
    for figure, value in cost_figures(quick=quick).items():
        report.add(f"cost, {figure}", value, most=COST_RATIO if figure == RATIO else None)


def _compare(report: Report, data: str, *, quick: bool) -> None:
    table = {}
    for name, method in (RIVALS | CHAINS | DETECTORS).items():
        start = time.process_time()
        table[name] = JUDGES[data](method, quick=quick)
        table[name]["CPU seconds"] = time.process_time() - start
    shown = pd.DataFrame(table).to_string(float_format="{:.3g}".format, na_rep="")
    print(f"# {data}", shown, sep="\n", flush=True)
    for name in DETECTORS:
        for figure, bar in ({} if quick else BARS[data]).items():
            report.add(f"{data}, {name}, {figure}", table[name][figure], **bar)
    if data in AHEAD:
        _lead(report, data, table, quick=quick)


def _lead(report: Report, data: str, table: dict[str, Figures], *, quick: bool) -> None:
    figure, least = AHEAD[data]
    if figure not in table[next(iter(RIVALS))]:
        report.note("TSB-AD is not installed: pip install --no-deps TSB-AD==1.5")
        return
    best = max(table[name][figure] for name in RIVALS)
    for name in DETECTORS:
        bar = None if quick else least
        report.add(f"{data}, {name}, {figure} / best rival", table[name][figure] / best, least=bar)


if __name__ == "__main__":
    sys.exit(main())

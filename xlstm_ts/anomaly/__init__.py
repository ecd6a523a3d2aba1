"""The stages of an anomaly detector after its forecast: each small, causal and O(1) a reading.

Needs numpy only, so that a stream runs it where there is no torch. `host` chains the stages;
`calibration` runs the last of them over a score that something else computed.
"""

from xlstm_ts.anomaly.calibration import Calibrated, calibrate_scores
from xlstm_ts.anomaly.events import Event
from xlstm_ts.anomaly.host import AnomalyHost
from xlstm_ts.anomaly.settings import HostConfig
from xlstm_ts.anomaly.verdicts import Trace, Verdict

__all__ = [
    "AnomalyHost",
    "Calibrated",
    "Event",
    "HostConfig",
    "Trace",
    "Verdict",
    "calibrate_scores",
]

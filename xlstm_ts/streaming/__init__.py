"""Streams over an exported graph: one reading in, one forecast out.

Needs numpy and onnxruntime only. A `Stream` is one sequence, a `StreamPool` thousands of them by
key; `snapshots` says how none of their outputs is lost.
"""

from xlstm_ts.streaming.models import StreamModel
from xlstm_ts.streaming.outputs import StreamOutput
from xlstm_ts.streaming.pool import StreamPool
from xlstm_ts.streaming.streams import Stream

__all__ = ["Stream", "StreamModel", "StreamOutput", "StreamPool"]

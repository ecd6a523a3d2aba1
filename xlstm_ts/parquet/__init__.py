"""Panels that are larger than memory: read from Parquet files while they are trained on.

It needs the extra `parquet` (pyarrow); see docs/parquet.md.
"""

from xlstm_ts.parquet.panel import ParquetPanel
from xlstm_ts.parquet.predicting import predict_parquet

__all__ = ["ParquetPanel", "predict_parquet"]

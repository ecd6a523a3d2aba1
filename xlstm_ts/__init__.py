"""xLSTM for time series and streams: train in parallel, serve one reading at a time."""

__version__ = "0.1.0"

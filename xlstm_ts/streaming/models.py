"""A loaded step graph, which all streams of one model share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xlstm_ts.checks import check_integer
from xlstm_ts.exceptions import StreamError
from xlstm_ts.export.contract import DETECTOR_KEY
from xlstm_ts.files import content_of
from xlstm_ts.streaming.sessions import CPU, Graph, called, check_providers, open_graph
from xlstm_ts.streaming.streams import Stream
from xlstm_ts.streaming.warming import WarmUpGraph


class StreamModel:
    """A loaded step graph: what all streams of one model share.

    Parameters
    ----------
    path : path-like or bytes
        A file that `xlstm_ts.export.onnx.export_onnx` wrote, or what is in it.
    providers : sequence of str or (str, options), default=("CPUExecutionProvider",)
        Providers of onnxruntime, the most wanted first; the CPU follows by itself. With
        "CUDAExecutionProvider" streams and pools keep their states on the device and compute in
        float32, unless its option "use_tf32" is 1.
    warm_up : path-like or bytes, optional
        The warm-up graph of the same weights: `Stream.warm_up` then takes many readings at once.
    threads : int, default=1
        Threads inside one step. More cost more than they bring at the size of one reading.

    Attributes
    ----------
    contract : Contract
        Names of the channels, horizon, quantile levels, layout of the state, versions.

    Raises
    ------
    StreamError
        Where a file is not such a graph of a version that this library reads, or the two are of
        different weights.

    Warns
    -----
    BackendWarning
        Where the first provider is not to be had: onnxruntime itself says nothing.
    """

    _is_inner = False  # whether something of ours stands before the graph

    def __init__(
        self,
        path: Graph,
        *,
        warm_up: Graph | None = None,
        providers: Sequence[str | tuple[str, Any]] = (CPU,),
        threads: int = 1,
    ) -> None:
        check_providers(providers)
        check_integer("threads", threads, least=1)
        options: Any = {"providers": providers, "threads": threads}
        self.session, self.contract = open_graph(path, kind="step", **options)
        if not self._is_inner and DETECTOR_KEY in self.session.get_modelmeta().custom_metadata_map:
            raise StreamError(
                f"{called(path)} holds a detector, whose graph takes no raw readings: load it "
                "with xlstm_ts.streaming.detectors.DetectorModel."
            )
        self.warm_up_graph = (
            None if warm_up is None else WarmUpGraph(warm_up, self.contract, **options)
        )
        # A stream needs all of the contract: what is wrong in it is to be told here.
        with content_of(called(path), kind="step graph of xlstm-ts", error=StreamError):
            told = [column for column in self.contract.columns if column.role == "static"]
            Stream(self, static={one.name: one.category or 0.0 for one in told})

    def __reduce__(self) -> Any:
        """Say what to do instead: a session of onnxruntime does not pickle."""
        raise TypeError("A loaded graph does not pickle: load its file in each process.")

    def create_stream(self, *, static: Mapping[str, Any] | None = None) -> Stream:
        """Return a stream that has seen nothing; its state is its own.

        Parameters
        ----------
        static : mapping, optional
            What is static of the stream, by name, where the model was trained with that.
        """
        return Stream(self, static=static)

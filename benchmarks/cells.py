"""The cells on the CPU, float32, one thread: beside torch.nn.LSTM of equal width and `xlstm`.

All candidates of a shape take turns in one process; ratios are of medians. The official package is
measured where the extra `peers` is installed, on the long shapes only once or twice: it is slow.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median

import torch
from _report import Report
from torch import Tensor, nn

from xlstm_ts.kernels.ops import mlstm, slstm

Run = Callable[[], Tensor]
Times = dict[str, tuple[float, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds, without the official peer")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    official = not options.quick and _has_official()
    rounds = 3 if options.quick else 9
    report = Report()
    if not official:
        report.note("official xlstm skipped: " + ("--quick" if options.quick else "no `peers`"))

    for shape, lstm_bar, official_bar in (
        ((64, 256, 4, 32), 0.65, 8),
        ((8, 1024, 4, 32), None, 30),
    ):
        peers = {"official": _official_mlstm(shape)} if official else {}
        times = _measure({"ours": _mlstm(shape), "LSTM": _lstm(shape), **peers}, rounds=rounds)
        _report(report, f"mLSTM {shape}", times, lstm_bar=lstm_bar, official_bar=official_bar)
    shape = (64, 256, 4, 32)
    peers = {"official": _official_slstm(shape)} if official else {}
    times = _measure({"ours": _slstm(shape), "LSTM": _lstm(shape), **peers}, rounds=rounds)
    _report(report, f"sLSTM {shape}", times, lstm_bar=0.8, official_bar=25)
    return report.finish(check=options.check)


def _report(
    report: Report, name: str, times: Times, *, lstm_bar: float | None, official_bar: float
) -> None:
    for part, label in enumerate(("forward", "forward+backward")):
        ours, lstm = times["ours"][part], times["LSTM"][part]
        report.add(f"{name} {label} ms", ours * 1e3)
        bar = lstm_bar if part else None
        report.add(f"{name} {label} time / nn.LSTM time", ours / lstm, most=bar)
        if "official" in times:
            bar = official_bar if part else None
            faster = times["official"][part] / ours
            report.add(f"{name} {label} times faster than official", faster, least=bar)


def _measure(runs: dict[str, Run], *, rounds: int) -> Times:
    """Return the medians of forward and forward+backward seconds of all, taken in turn."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            if name == "official" and turn > 2:
                continue
            sample = _once(run)
            if turn:  # the first is warm-up
                samples[name].append(sample)
    return {name: (median(a for a, _ in s), median(b for _, b in s)) for name, s in samples.items()}


def _once(run: Run) -> tuple[float, float]:
    with torch.no_grad():
        start = time.process_time()
        run()
        forward = time.process_time() - start
    start = time.process_time()
    run().sum().backward()
    return forward, time.process_time() - start


def _mlstm_inputs(shape: tuple[int, ...]) -> list[Tensor]:
    vectors = [torch.randn(shape, requires_grad=True) for _ in range(3)]
    gates = [torch.randn(shape[:3], requires_grad=True) for _ in range(2)]
    return [*vectors, *gates]


def _slstm_inputs(shape: tuple[int, ...]) -> list[Tensor]:
    B, T, H, D = shape
    sizes = ((B, T, 4, H, D), (H, 4, D, D), (4, H, D))
    return [(torch.randn(size) / D**0.5).requires_grad_() for size in sizes]


def _mlstm(shape: tuple[int, ...]) -> Run:
    inputs = _mlstm_inputs(shape)
    return lambda: mlstm(*inputs)[0]


def _slstm(shape: tuple[int, ...]) -> Run:
    inputs = _slstm_inputs(shape)
    return lambda: slstm(*inputs)[0]


def _lstm(shape: tuple[int, ...]) -> Run:
    B, T, H, D = shape
    layer = nn.LSTM(H * D, H * D, batch_first=True)
    x = torch.randn(B, T, H * D, requires_grad=True)
    return lambda: layer(x)[0]


def _has_official() -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import xlstm  # noqa: F401
    except ImportError:
        return False
    return True


def _official_mlstm(shape: tuple[int, ...]) -> Run:
    from xlstm.blocks.mlstm.backends import parallel_stabilized_simple

    inputs = [x.detach().transpose(1, 2).contiguous() for x in _mlstm_inputs(shape)]
    q, k, v = (x.requires_grad_() for x in inputs[:3])
    i, f = (x.unsqueeze(-1).requires_grad_() for x in inputs[3:])
    lower = torch.ones(shape[1], shape[1], dtype=torch.bool).tril()
    return lambda: parallel_stabilized_simple(q, k, v, i, f, lower_triangular_matrix=lower)


def _official_slstm(shape: tuple[int, ...]) -> Run:
    from xlstm.blocks.slstm.cell import sLSTMCell, sLSTMCellConfig

    B, T, H, D = shape
    config = sLSTMCellConfig(hidden_size=H * D, num_heads=H, backend="vanilla", dtype="float32")
    cell = sLSTMCell(config)
    x = torch.randn(B, T, 4 * H * D, requires_grad=True)
    return lambda: cell(x)[0]


if __name__ == "__main__":
    sys.exit(main())

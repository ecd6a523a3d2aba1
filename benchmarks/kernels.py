"""The Triton kernels on a CUDA device, beside torch, cuDNN, attention and `mlstm_kernels`.

Times are medians of device time, forward and forward+backward, bfloat16, all candidates in turn in
one process. The floor reads and writes each tensor of a pass once at the copy bandwidth measured in
the same run. The table goes to `benchmarks/results/kernels-<device>.md`. Without a CUDA device
nothing is measured.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import torch
from _report import Report
from torch import Tensor, nn
from torch.nn import functional as F

from xlstm_ts.kernels.ops import mlstm, slstm, slstm_step
from xlstm_ts.kernels.states import SLSTMState, slstm_initial_state

SHAPES = [  # (B, T, H, D)
    (256, 96, 4, 32),
    (256, 512, 4, 32),
    (1024, 512, 4, 32),
    (1024, 1024, 4, 64),
    (8, 8192, 64, 64),
    (1, 131072, 4, 64),
]
QUICK = SHAPES[:1]
SCAN_SHAPE = (256, 128, 4, 32)
COMPILED_STEPS = 4  # of one compiled graph: 16 take minutes to compile
DTYPE, DEVICE = torch.bfloat16, "cuda"
OFFICIAL_CHUNKS = (64, 128, 256)
# Longest sequences that the quadratic and the step-by-step peers are asked to do.
ATTENTION_LIMIT, LSTM_LIMIT = 16384, 16384

# A slow candidate gets fewer rounds: no more than these once it has taken so many seconds.
FEWEST, ENOUGH = 3, 1.0

# Device cycles of sleep before a sample, some 2 ms: by its end the launches of a
# small shape stand in the queue, and what is timed is the device and not the host.
SLEEP = 1 << 22

Run = tuple[Callable[[], Tensor], list[Tensor]]  # a forward pass, and what it takes gradients of
Shape = tuple[int, int, int, int]
# Bars of forward+backward: at least so many times faster, or so much of the floor.
OFFICIAL_BARS = {(1024, 1024, 4, 64): 2.5, (8, 8192, 64, 64): 2.5}
EAGER_BARS = {(256, 96, 4, 32): 5.0}
FLOOR_BARS = {(1024, 512, 4, 32): 0.4}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the first shape alone")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    options = parser.parse_args()
    report = Report()
    if not torch.cuda.is_available():
        report.note("no CUDA device: nothing measured")
        return 0
    torch.manual_seed(0)
    bandwidth = _copy_bandwidth()
    report.add("copy bandwidth GB/s", bandwidth / 1e9)
    rows: list[tuple[object, ...]] = []
    for shape in QUICK if options.quick else SHAPES:
        rows += _mlstm_rows(report, shape, bandwidth)
        if not options.quick:  # what was measured stays, should a lent device go
            _write(rows, bandwidth)
    rows += _slstm_rows(report)
    if not options.quick:
        _write(rows, bandwidth)
    return report.finish(check=options.check)


def _mlstm_rows(report: Report, shape: Shape, bandwidth: float) -> list[tuple[object, ...]]:
    """Measure one shape; report its figures, return the lines of the table."""
    peers = _peers(report, shape)
    runs = {"ours": _ours(shape), "torch": _ours(shape, backend="torch"), **peers}
    times = {name: _seconds(run) for name, run in runs.items()}
    official = [time for name, time in times.items() if name.startswith("mlstm_kernels")]
    for part, label in enumerate(("forward", "forward+backward")):
        name = f"mLSTM {shape} {label}"
        ours = times["ours"][part]
        report.add(f"{name} ms", ours * 1e3)
        share = _bytes(shape, backward=bool(part)) / bandwidth / ours
        bar = FLOOR_BARS.get(shape) if part else None
        report.add(f"{name} share of the floor", share, least=bar)
        eager = times["torch"][part] / ours
        bar = EAGER_BARS.get(shape) if part else None
        report.add(f"{name} times faster than torch chunkwise", eager, least=bar)
        for peer in ("LSTM", "attention"):
            if peer in times:
                report.add(f"{name} time / {peer} time", ours / times[peer][part])
        if official:
            bar = OFFICIAL_BARS.get(shape) if part else None
            faster = min(time[part] for time in official) / ours
            report.add(f"{name} times faster than mlstm_kernels", faster, least=bar)
    return [(f"mLSTM {shape}", peer, *time) for peer, time in times.items()]


def _slstm_rows(report: Report) -> list[tuple[object, ...]]:
    B, T, H, D = SCAN_SHAPE
    x = torch.randn(B, T, 4, H, D, device=DEVICE, dtype=DTYPE, requires_grad=True)
    r = (torch.randn(H, 4, D, D, device=DEVICE) / D).requires_grad_()
    b = torch.randn(4, H, D, device=DEVICE, requires_grad=True)

    @torch.compile
    def some_steps(x: Tensor, r: Tensor, b: Tensor, *state: Tensor) -> tuple[Tensor, SLSTMState]:
        outputs, last = [], SLSTMState(*state)
        for t in range(COMPILED_STEPS):
            h, last = slstm_step(x[:, t], r, b, last)
            outputs.append(h)
        return torch.stack(outputs, 1), last

    def loop() -> Tensor:
        state, outputs = slstm_initial_state(B, H, D, dtype=torch.float32, device=x.device), []
        for part in x.split(COMPILED_STEPS, 1):
            h, state = some_steps(part, r, b, *state)
            outputs.append(h)
        return torch.cat(outputs, 1)

    runs: dict[str, Run] = {
        "ours": (lambda: slstm(x, r, b, precision="bf16")[0], [x, r, b]),
        "compiled loop": (loop, [x, r, b]),
        "LSTM": _lstm(SCAN_SHAPE),
    }
    times = {name: _seconds(run) for name, run in runs.items()}
    for part, label in enumerate(("forward", "forward+backward")):
        name = f"sLSTM {SCAN_SHAPE} {label}"
        report.add(f"{name} ms", times["ours"][part] * 1e3)
        faster = times["compiled loop"][part] / times["ours"][part]
        bar = 5.0 if part else None
        report.add(f"{name} times faster than a compiled loop", faster, least=bar)
        report.add(f"{name} time / LSTM time", times["ours"][part] / times["LSTM"][part])
    return [(f"sLSTM {SCAN_SHAPE}", peer, *time) for peer, time in times.items()]


def _inputs(shape: Shape, *, heads_first: bool = False) -> list[Tensor]:
    size = (shape[0], shape[2], shape[1], shape[3]) if heads_first else shape
    vectors = [torch.randn(size, device=DEVICE, dtype=DTYPE) for _ in range(3)]
    gates = [torch.randn(size[:3], device=DEVICE) + bias for bias in (-5.0, 4.0)]
    return [x.requires_grad_() for x in (*vectors, *gates)]


def _ours(shape: Shape, *, backend: str = "auto") -> Run:
    inputs = _inputs(shape)
    return lambda: mlstm(*inputs, backend=backend, precision="bf16")[0], inputs


def _peers(report: Report, shape: Shape) -> dict[str, Run]:
    """Return what can be measured beside the kernels at this length."""
    _, T, _, _ = shape
    peers: dict[str, Run] = {}
    if T <= LSTM_LIMIT:
        peers["LSTM"] = _lstm(shape)
    else:
        report.note(f"{shape}: no LSTM beyond {LSTM_LIMIT} steps")
    if T <= ATTENTION_LIMIT:
        q, k, v, *_ = _inputs(shape, heads_first=True)
        run = partial(F.scaled_dot_product_attention, q, k, v, is_causal=True)
        peers["attention"] = run, [q, k, v]
    else:
        report.note(f"{shape}: no attention beyond {ATTENTION_LIMIT} steps")
    return peers | _official(report, shape)


def _lstm(shape: Shape) -> Run:
    B, T, H, D = shape
    layer = nn.LSTM(H * D, H * D, batch_first=True, device=DEVICE, dtype=DTYPE)
    x = torch.randn(B, T, H * D, device=DEVICE, dtype=DTYPE, requires_grad=True)
    return lambda: layer(x)[0], [x, *layer.parameters()]


def _official(report: Report, shape: Shape) -> dict[str, Run]:
    """Return the chunkwise kernels of `mlstm_kernels`, one for each chunk that runs here."""
    try:
        module = importlib.import_module("mlstm_kernels.torch.chunkwise.triton_xl_chunk")
    except ImportError as error:
        report.note(f"{shape}: no mlstm_kernels, {error}")
        return {}
    inputs = _inputs(shape, heads_first=True)
    runs: dict[str, Run] = {}
    for chunk in OFFICIAL_CHUNKS:
        run = _official_run(module, inputs, chunk)
        try:
            _both(run)()
        except Exception as error:  # it refuses lengths, chunks and versions of Triton in many ways
            report.note(f"{shape}: no mlstm_kernels in chunks of {chunk}, {error!r:.200}")
            continue
        runs[f"mlstm_kernels, chunk {chunk}"] = run
    return runs


def _official_run(module: object, inputs: list[Tensor], chunk: int) -> Run:
    kernel = module.mlstm_chunkwise__xl_chunk  # type: ignore[attr-defined]
    return lambda: kernel(*inputs, chunk_size=chunk, autocast_kernel_dtype=DTYPE), inputs


def _seconds(run: Run, *, rounds: int = 20) -> tuple[float, float]:
    """Return the median device seconds of forward, and of forward and backward."""

    def forward() -> None:
        with torch.no_grad():
            run[0]()

    return _median(forward, rounds), _median(_both(run), rounds)


def _both(run: Run) -> Callable[[], None]:
    """Return forward and backward, from a dense gradient and into none that is kept."""
    forward, inputs = run
    with torch.no_grad():
        dh = torch.randn_like(forward())

    def both() -> None:
        torch.autograd.grad(forward(), inputs, dh)

    return both


def _median(run: Callable[[], object], rounds: int) -> float:
    run()  # compiles, and chooses algorithms
    samples: list[float] = []
    while len(samples) < rounds and (len(samples) < FEWEST or sum(samples) < ENOUGH):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(SLEEP)  # type: ignore[attr-defined]
        start.record()
        run()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) / 1e3)
    return median(samples)


def _copy_bandwidth() -> float:
    """Return bytes read and written a second by a large copy."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.numel() / _median(partial(target.copy_, source), 20)


def _bytes(shape: Shape, *, backward: bool) -> float:
    """Return what a pass has to move: vectors in bfloat16, gates and row statistics in float32."""
    B, T, H, D = shape
    vector, number = 2 * B * T * H * D, 4 * B * T * H
    moved = 4 * vector + 4 * number  # q k v h; i f d mc
    if backward:
        moved += 8 * vector + 6 * number  # q k v h dh, dq dk dv; i f d mc, di df
    return moved


def _write(rows: list[tuple[object, ...]], bandwidth: float) -> None:
    """Write the table of the run."""
    device = torch.cuda.get_device_name()
    triton = importlib.import_module("triton").__version__
    lines = [
        f"# Kernels on {device}",
        "",
        f"{date.today()}, torch {torch.__version__}, triton {triton}, copy bandwidth "
        f"{bandwidth / 1e9:.0f} GB/s, bfloat16. `python benchmarks/kernels.py`",
        "",
        "| shape (B, T, H, D) | what | forward ms | forward+backward ms |",
        "|---|---|---|---|",
        *(f"| {shape} | {what} | {1e3 * a:.3f} | {1e3 * b:.3f} |" for shape, what, a, b in rows),
    ]
    path = Path(__file__).parent / "results" / f"kernels-{device.replace(' ', '-').lower()}.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())

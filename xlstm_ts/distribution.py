"""One training in many processes: each takes its rows of every batch, and all take the same steps.

A batch is drawn whole in every process, from the same seeds, and is the same whatever their number.
So are losses and decisions: they are sums over all rows, and what one process wants, all do.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from xlstm_ts.checks import check_choice, check_integer
from xlstm_ts.compute import find_device
from xlstm_ts.exceptions import BackendError, BackendWarning, SeriesError, SeriesWarning
from xlstm_ts.model import XLSTM

if TYPE_CHECKING:
    from xlstm_ts.forecaster import XLSTMForecaster

Strategy = Literal["auto", "ddp"]
Precision = Literal["32-true", "bf16-mixed"]
CPU = torch.device("cpu")

Answer = TypeVar("Answer")


class Processes:
    """One process, which has all rows and decides alone.

    Parameters
    ----------
    device : torch.device
        Where it computes.
    precision : {"32-true", "bf16-mixed"}
        In what matrix products are computed; weights and sums stay float32.
    """

    count = 1
    is_first = True

    def __init__(self, device: torch.device = CPU, *, precision: Precision = "32-true") -> None:
        self.device = device
        self.is_mixed = precision == "bf16-mixed"

    def own(self, size: int) -> slice:
        """Return which of `size` rows are those of this process."""
        return slice(size)

    def wrap(self, model: XLSTM) -> Callable[..., Any]:
        """Return `model.forward_patches`, with a backward pass that averages over processes."""
        return model.forward_patches

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in the precision asked for."""
        if not self.is_mixed:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def mean(self, loss: Tensor, *, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return what to go backward from, and the mean over all rows, of own means of `count`."""
        return loss, loss.detach()

    def whole(self, part: Tensor, *, size: int) -> Tensor:
        """Return all `size` rows, of which `part` are the own ones."""
        return part

    def first(self, ask: Callable[[], Answer]) -> Answer:
        """Ask in the first process; return or raise in all of them what comes of it."""
        return ask()

    def agree(self, *, stop: bool) -> bool:
        """Say whether any process wants to stop.

        Raises
        ------
        KeyboardInterrupt
            In all of many processes, where one of them was interrupted.
        """
        return stop

    def check_same(self, series: Sequence[Tensor]) -> None:
        """Refuse series that are not those of the first process."""

    def part_ways(self) -> None:
        """Let each process drop other activations from here on."""

    def interruptible(self) -> AbstractContextManager[None]:
        """Keep Ctrl-C until all of many processes agree on it."""
        return nullcontext()


class _Patches(nn.Module):
    """The path of training as the one `forward` that gradients are averaged after."""

    def __init__(self, model: XLSTM) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.model.forward_patches(*inputs, **options)


class FabricProcesses(Processes):
    """One of the processes that torchrun has started, joined by Lightning Fabric.

    Parameters
    ----------
    fabric : lightning_fabric.Fabric
        It is launched.
    precision : {"32-true", "bf16-mixed"}
        As for one process. Fabric's own would round readings and columns too, not products alone.
    """

    def __init__(self, fabric: Any, *, precision: Precision) -> None:
        super().__init__(fabric.device, precision=precision)
        self.fabric = fabric
        self.count = fabric.world_size
        self.is_first = fabric.is_global_zero
        self.is_interrupted = False

    def own(self, size: int) -> slice:
        """Return a run of rows, as long as those of the others or one longer."""
        rank = self.fabric.global_rank
        return slice(size * rank // self.count, size * (rank + 1) // self.count)

    def wrap(self, model: XLSTM) -> Callable[..., Any]:
        """Return the path of training; all processes begin from the weights of the first."""
        return self.fabric.setup_module(_Patches(model))

    def mean(self, loss: Tensor, *, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return shares of one mean: gradients are averaged, so each counts by its targets."""
        sums = self._sum(torch.stack((loss.detach() * count, count)).double())
        total = sums[1].clamp_min(1)
        return loss * (self.count * count / total), (sums[0] / total).to(loss.dtype)

    def whole(self, part: Tensor, *, size: int) -> Tensor:
        """Return rows that are zero but for the own ones, summed."""
        rows = part.new_zeros(size, *part.shape[1:])
        rows[self.own(size)] = part
        return self._sum(rows)

    def first(self, ask: Callable[[], Answer]) -> Answer:
        """Ask in the first process and tell the others, errors too: they would wait for ever."""
        answer, error = None, None
        if self.is_first:
            try:
                answer = ask()
            except (Exception, KeyboardInterrupt) as err:
                error = err
        answer, error = self.fabric.broadcast((answer, error))
        if error is not None:
            raise error
        return answer

    def agree(self, *, stop: bool) -> bool:
        """Ask all processes, at the same place of each."""
        wishes = torch.tensor([stop, self.is_interrupted], dtype=torch.int32, device=self.device)
        stopped, interrupted = (self._sum(wishes) > 0).tolist()
        if interrupted:
            raise KeyboardInterrupt
        return bool(stopped)

    def check_same(self, series: Sequence[Tensor]) -> None:
        """Compare digests; what one process finds is raised in all."""
        digest = hashlib.sha256()
        for one in series:
            digest.update(repr(one.shape).encode() + one.numpy().tobytes())
        found = digest.hexdigest()
        if self.agree(stop=found != self.first(lambda: found)):
            raise SeriesError(
                "`y` is not the same in all processes; give each of them all series: they share "
                "the windows out themselves."
            )

    def part_ways(self) -> None:
        """Seed torch anew, but in the first process: it goes on as one alone would."""
        if not self.is_first:
            seed = int(torch.randint(2**62, ())) + self.fabric.global_rank
            torch.manual_seed(seed)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Note a Ctrl-C: raised in the middle of a step it would leave the others waiting."""
        self.is_interrupted = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _note(self, *_: Any) -> None:
        self.is_interrupted = True

    def _sum(self, part: Tensor) -> Tensor:
        return self.fabric.all_reduce(part, reduce_op="sum")


def join_processes(forecaster: XLSTMForecaster) -> Processes:
    """Return this process, joined with the others that a forecaster asks for.

    Raises
    ------
    ValueError
        Where a parameter is out of range, or other processes were started than it asks for.
    BackendError
        Where there are many and lightning-fabric is not installed.
    """
    check_choice("strategy", forecaster.strategy, among=get_args(Strategy))
    check_choice("precision", forecaster.precision, among=get_args(Precision))
    started, on_this_node = _started()
    devices, num_nodes = forecaster.devices, forecaster.num_nodes
    if devices == "auto":
        devices = on_this_node
    _check_counts(devices, num_nodes)
    device = find_device(forecaster.device)
    if devices * num_nodes == 1:
        if started > 1 and os.environ["RANK"] == "0":
            _warn_alone(started)
        return Processes(device, precision=forecaster.precision)
    _check_started(started, devices=devices, num_nodes=num_nodes)
    if device.index is not None:
        raise ValueError(
            f"`device` names one device, {forecaster.device!r}, for {devices}; give "
            f"{device.type!r}, and each process takes its own."
        )
    fabric = _launch(
        device.type, devices=devices, num_nodes=num_nodes, strategy=forecaster.strategy
    )
    return FabricProcesses(fabric, precision=forecaster.precision)


def first_alone_warns(forecaster: XLSTMForecaster) -> AbstractContextManager[Any]:
    """Let one of the processes that read the same series speak of them."""
    is_alone = (forecaster.devices, forecaster.num_nodes) == (1, 1)
    if is_alone or _started() == (1, 1) or os.environ["RANK"] == "0":
        return nullcontext()
    return _without_series_warnings()


@contextmanager
def _without_series_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SeriesWarning)
        yield


def _check_counts(devices: object, num_nodes: object) -> None:
    if isinstance(devices, str):
        raise ValueError(f"`devices` must be an integer or 'auto', got {devices!r}.")
    check_integer("devices", devices, least=1)
    check_integer("num_nodes", num_nodes, least=1)


def _check_started(started: int, *, devices: int, num_nodes: int) -> None:
    if devices * num_nodes != started:
        raise ValueError(
            f"`devices={devices}` on `num_nodes={num_nodes}` asks for {devices * num_nodes} "
            f"processes, and there {'is 1' if started == 1 else f'are {started}'}; start them by "
            f"`torchrun --nnodes {num_nodes} --nproc-per-node {devices} script.py`, or ask for one."
        )


def _warn_alone(started: int) -> None:
    warnings.warn(
        f"torchrun started {started} processes, and each of them trains the same model alone; give "
        "`devices='auto'` to train it together.",
        BackendWarning,
        stacklevel=4,
    )


def _started() -> tuple[int, int]:
    """Return how many processes torchrun has started, and how many of them on this machine."""
    if not (torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()):
        return 1, 1
    return int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])


def _launch(accelerator: str, *, devices: int, num_nodes: int, strategy: str) -> Any:
    try:
        from lightning_fabric import Fabric
    except ImportError as err:
        raise BackendError(
            f"`devices={devices}` needs lightning-fabric: pip install 'xlstm-ts[fabric]'."
        ) from err
    # It would greet from every process.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=accelerator, strategy=strategy, devices=devices, num_nodes=num_nodes
    )
    fabric.launch()
    return fabric

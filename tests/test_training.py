"""Training sees the training part alone and leaves the model with its best weights."""

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from xlstm_ts import training
from xlstm_ts.compute import find_device
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.exceptions import BackendError, InterruptedWarning
from xlstm_ts.losses import pinball_loss
from xlstm_ts.model import XLSTM
from xlstm_ts.runs import Record
from xlstm_ts.training import TrainingConfig, _rate, train
from xlstm_ts.windows import WindowSampler

LENGTH, N_TRAIN, CONTEXT = 120, 100, 16
CONFIG = TrainingConfig(
    context_length=CONTEXT,
    max_steps=4,
    batch_size=8,
    learning_rate=1e-2,
    weight_decay=0.0,
    gradient_clip=1.0,
    validation_every=4,
    patience=None,
    verbose=0,
)


def make_model(dropout: float = 0.0) -> XLSTM:
    torch.manual_seed(0)
    return XLSTM(
        XLSTMConfig(n_channels=2, horizon=4, patch_length=2, d_model=8, n_heads=2, dropout=dropout)
    )


def make_series() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    wave = torch.sin(torch.arange(LENGTH) * math.pi / 4)[:, None].repeat(1, 2)
    return wave + 0.3 * torch.randn(LENGTH, 2, generator=generator)


def trained(
    model: XLSTM, series: torch.Tensor, **changes: object
) -> tuple[dict[str, torch.Tensor], list[Record]]:
    """Return the weights and the records of a training from fixed seeds."""
    torch.manual_seed(2)
    records = train(
        model,
        [series],
        n_train=[N_TRAIN],
        config=replace(CONFIG, **changes),
        generator=torch.Generator().manual_seed(3),
    )
    return model.state_dict(), records


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_the_tail_is_never_trained_on() -> None:
    series = make_series()
    changed = series.clone()
    changed[N_TRAIN:] += 5
    weights, records = trained(make_model(), series)
    others, other_records = trained(make_model(), changed)
    (look,), (other_look,) = records, other_records  # one look: there is nothing to choose
    assert look.validation_loss != other_look.validation_loss
    assert same(weights, others)


def test_the_best_weights_come_back_and_were_judged_without_dropout() -> None:
    model, series = make_model(dropout=0.5), make_series()
    _, records = trained(model, series, max_steps=12, validation_every=1, learning_rate=0.6)
    losses = [record.validation_loss for record in records]
    assert losses.index(min(losses)) < len(losses) - 1
    assert not model.training
    tail = series[N_TRAIN - CONTEXT :]
    sampler = WindowSampler([tail], groups=2, context_length=CONTEXT, patch_length=2, horizon=4)
    value, observed, _, target, _ = sampler.spread(1024)
    with torch.no_grad():
        forecast, _ = model.forward_patches(value, observed)
    loss = pinball_loss(forecast[:, -1], target[:, -1], model.levels).item()
    assert loss == pytest.approx(min(losses), rel=1e-5)


def test_dropout_is_on_in_training() -> None:
    without, _ = trained(make_model(), make_series())
    with_dropout, _ = trained(make_model(dropout=0.5), make_series())
    assert not same(without, with_dropout)


@pytest.mark.parametrize("every", [1, 2])
def test_looking_changes_nothing(every: int) -> None:
    """Dropout is on again after a look, and the look itself draws nothing."""
    _, seldom = trained(make_model(dropout=0.5), make_series())
    _, often = trained(make_model(dropout=0.5), make_series(), validation_every=every)
    mean = np.mean([record.loss for record in often])
    assert mean == pytest.approx(seldom[0].loss, rel=1e-6)
    assert often[-1].validation_loss == seldom[0].validation_loss


def test_gradients_are_clipped() -> None:
    start = copy.deepcopy(make_model().state_dict())
    moved = []
    for clip in (1e-12, 1.0):
        weights, _ = trained(make_model(), make_series(), gradient_clip=clip)
        moved.append(
            max((weights[name] - w).abs().max().item() for name, w in start.items() if w.numel())
        )
    # AdamW divides by the size of the gradient, but for an epsilon of 1e-8 that now outweighs it.
    assert moved[0] < 1e-3 * moved[1]


def test_rate_warms_up_and_falls_to_zero() -> None:
    rates = np.array([_rate(step, 1000) for step in range(1001)])
    assert rates[0] == pytest.approx(1 / 50, rel=1e-3)
    assert rates.argmax() == 49
    assert (np.diff(rates[50:]) < 0).all()
    assert rates[-1] == pytest.approx(0, abs=1e-12)


def interrupting(monkeypatch: pytest.MonkeyPatch, *, call: int) -> None:
    """Press Ctrl-C in the middle of a step, with the weights moved and the step not counted."""
    update, calls = training._update, []

    def interrupted(*args: object, **options: object) -> torch.Tensor:
        calls.append(update(*args, **options))
        if len(calls) == call:
            raise KeyboardInterrupt
        return calls[-1]

    monkeypatch.setattr(training, "_update", interrupted)


def test_callbacks_see_every_look_and_change_nothing() -> None:
    options = {"max_steps": 6, "validation_every": 2}
    weights, records = trained(make_model(0.5), make_series(), **options)
    seen, counts = [], []
    callbacks = (seen.append, lambda record: counts.append(record) or len(counts))
    again, _ = trained(make_model(0.5), make_series(), **options, callbacks=callbacks)
    assert seen == counts == records
    assert [record.step for record in seen] == [2, 4, 6]
    assert same(weights, again)


@pytest.mark.parametrize("truth", [True, np.True_])
def test_a_callback_stops_after_all_were_called(truth: object) -> None:
    seen = []
    callbacks = (lambda record: truth if record.step == 4 else None, seen.append)
    options = {"max_steps": 8, "validation_every": 2, "callbacks": callbacks}
    _, records = trained(make_model(), make_series(), **options)
    assert [record.step for record in records] == [2, 4]
    assert seen == records


@pytest.mark.parametrize(("seconds", "looks"), [(0.5, [1]), (4.5, [4, 5]), (7.5, [4, 8])])
def test_time_ends_training_after_the_step_past_it(
    seconds: float, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))  # a second a step
    seen = []
    options = {"max_steps": 100, "max_time": seconds, "callbacks": (seen.append,)}
    model = make_model()
    _, records = trained(model, make_series(), **options)
    assert [record.step for record in records] == looks
    assert seen == records
    assert not model.training


@pytest.mark.parametrize("n_train", [N_TRAIN, LENGTH])
@pytest.mark.parametrize("call", [2, 6])
def test_an_interrupt_keeps_what_was_learned(
    call: int, n_train: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupting(monkeypatch, call=call)
    model, seen = make_model(), []
    start = copy.deepcopy(model.state_dict())
    config = replace(CONFIG, max_steps=8, callbacks=(seen.append,))
    with pytest.warns(InterruptedWarning, match=f"after step {call - 1} of 8"):
        records = train(
            model, [make_series()], n_train=[n_train], config=config, generator=torch.Generator()
        )
    assert [record.step for record in records] == ([1] if call == 2 else [4, 5])
    assert seen == records
    assert not same(start, model.state_dict())
    assert not model.training


def test_an_interrupt_restores_the_best_weights() -> None:
    model, looks = make_model(), []

    def keep(record: Record) -> None:
        looks.append((record.validation_loss, copy.deepcopy(model.state_dict())))
        if record.validation_loss > looks[0][0]:
            raise KeyboardInterrupt
        looks.sort(key=lambda look: look[0])

    options = {"max_steps": 50, "validation_every": 1, "learning_rate": 0.3}
    with pytest.warns(InterruptedWarning):
        weights, _ = trained(model, make_series(), **options, callbacks=(keep,))
    assert same(looks[0][1], weights)
    assert not same(looks[-1][1], weights)


def test_an_interrupt_before_the_first_step_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupting(monkeypatch, call=1)
    with pytest.raises(KeyboardInterrupt):
        trained(make_model(), make_series())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(
        BackendError, match=r"`device` is 'cuda', and torch .* finds no CUDA device"
    ):
        find_device("cuda")

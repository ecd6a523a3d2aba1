"""Rows of a batch go on where those before them ended, and begin anew where nothing follows."""

import torch

from xlstm_ts import XLSTMForecaster
from xlstm_ts.carrying import FRESH, begin, follow
from xlstm_ts.config import XLSTMConfig
from xlstm_ts.model import XLSTM
from xlstm_ts.runs import Run
from xlstm_ts.training import UNSCORED_PART, TrainingConfig, _update
from xlstm_ts.windows import WindowSampler

SIZE, CONTEXT, CONTEXT_OF_TEN = 64, 6, 20
# Each reading says where it stands, and of which series and channel it is.
SERIES = [torch.arange(60.0)[:, None] + torch.tensor([0, 1000]) + 100 * n for n in range(2)]


def make() -> tuple[XLSTM, WindowSampler]:
    torch.manual_seed(0)
    model = XLSTM(XLSTMConfig(n_channels=2, horizon=4, patch_length=2, d_model=8, n_heads=2))
    sampler = WindowSampler(SERIES, groups=2, context_length=CONTEXT, patch_length=2, horizon=4)
    return model, sampler


def test_rows_follow_on_with_the_state_that_was_left() -> None:
    model, sampler = make()
    generator = torch.Generator().manual_seed(0)
    rows = begin(model, sampler, size=SIZE, generator=generator)
    assert rows.is_fresh.all()
    carried = 0
    for _ in range(5):
        before = sampler.cut(rows.groups, rows.starts)
        _, left = model.forward_patches(before.value, before.observed, None, rows.state)
        rows = follow(rows, left, model=model, sampler=sampler, generator=generator)
        after = sampler.cut(rows.groups, rows.starts)
        goes_on = ~rows.is_fresh
        carried += int(goes_on.sum())
        assert (after.value[goes_on, 0] == before.value[goes_on, -1] + 1).all()
        cold = model.patch_state(SIZE)
        for new, old, start in zip(rows.state, left, cold, strict=True):
            assert not new.requires_grad
            torch.testing.assert_close(new[goes_on], old[goes_on], atol=0, rtol=0)
            torch.testing.assert_close(new[rows.is_fresh], start[rows.is_fresh], atol=0, rtol=0)
    assert 0.4 * 5 * SIZE < carried < (1 - FRESH / 2) * 5 * SIZE


def test_no_row_leaves_its_series() -> None:
    _, sampler = make()
    # Of 60 readings a window of 10 begins at 50 at the latest, and another needs 6 more.
    assert sampler.has_next(torch.tensor([0, 44, 45, 50, 60, 104, 105])).tolist() == [
        True, True, False, False, True, True, False,
    ]  # fmt: skip


def test_a_stateful_fit_is_another_one_and_repeatable() -> None:
    y = torch.sin(torch.arange(300.0)).numpy()
    options = {
        "horizon": 4, "patch_length": 2, "context_length": 16, "d_model": 8, "n_heads": 2,
        "max_steps": 5, "random_state": 0,
    }  # fmt: skip
    one, other, plain = (
        XLSTMForecaster(**options, stateful=stateful).fit(y).predict()
        for stateful in (True, True, False)
    )
    assert (one == other).all()
    assert (one != plain).any()


def test_first_tokens_count_but_in_rows_that_begin_cold() -> None:
    config = TrainingConfig(
        context_length=CONTEXT_OF_TEN,
        max_steps=1,
        batch_size=4,
        learning_rate=1e-3,
        weight_decay=0.0,
        gradient_clip=1.0,
        validation_every=1,
        patience=None,
        verbose=0,
        stateful=True,
    )

    def loss(*, is_fresh: bool, shift: float) -> float:
        model, _ = make()
        sampler = WindowSampler(
            SERIES, groups=2, context_length=CONTEXT_OF_TEN, patch_length=2, horizon=4
        )
        rows = begin(model, sampler, size=4, generator=torch.Generator().manual_seed(0))
        rows = rows._replace(is_fresh=torch.full((4,), is_fresh))
        windows = sampler.cut(rows.groups, rows.starts)
        target = windows.target.clone()
        target[:, : target.shape[1] // UNSCORED_PART] += shift
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        run = Run(
            model=model,
            optimizer=optimizer,
            schedule=torch.optim.lr_scheduler.ConstantLR(optimizer),
            generator=torch.Generator(),
        )
        value, _ = _update(run, windows._replace(target=target), config=config, rows=rows)
        return value.item()

    assert loss(is_fresh=True, shift=0.0) == loss(is_fresh=True, shift=1e4)
    assert loss(is_fresh=False, shift=0.0) != loss(is_fresh=False, shift=1e4)

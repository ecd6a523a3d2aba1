"""The model's contract: one set of weights, forward and step agree, nothing looks ahead."""

import warnings

import numpy as np
import pytest
import torch

from tests.conftest import ARRAY, CONFIGS, build_model, make_columns, make_readings, small

T = 23

family = pytest.mark.parametrize("name", CONFIGS)


@family
@torch.no_grad()
def test_forward_equals_steps(name: str) -> None:
    model, readings = build_model(name), make_readings(2, T)
    columns = make_columns(model, 2, T)
    forecasts, final = model(readings, covariates=columns)
    state, ahead = model.initial_state(2), model.covariates.ahead(columns)
    for t in range(T):
        future = ahead[:, t + 1 : t + 1 + model.config.horizon]
        forecast, state = model.step(readings[:, t], state, columns[:, t], future)
        torch.testing.assert_close(forecast, forecasts[:, t], atol=1e-10, rtol=1e-10)
    for one, other in zip(final, state, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
    assert forecasts.isfinite().all()


@family
@pytest.mark.parametrize("cut", [1, 4, 11, 22])
@torch.no_grad()
def test_cutting_changes_nothing(name: str, cut: int) -> None:
    model, readings = build_model(name), make_readings(2, T)
    columns = make_columns(model, 2, T)
    whole, _ = model(readings, covariates=columns)
    head, state = model(readings[:, :cut], None, columns[:, : cut + model.config.horizon])
    tail, _ = model(readings[:, cut:], state, columns[:, cut:])
    torch.testing.assert_close(torch.cat((head, tail), 1), whole, atol=1e-10, rtol=1e-10)


@family
@torch.no_grad()
def test_patches_go_on_from_a_state(name: str) -> None:
    model = build_model(name)
    patch, horizon = model.config.patch_length, model.config.horizon
    value, observed = model._fold(make_readings(2, 6 * patch))
    columns = make_columns(model, len(value), 6 * patch)
    groups = model._groups(2)
    whole, end = model.forward_patches(value, observed, columns, groups=groups)
    cut = 4 * patch
    head, state = model.forward_patches(
        value[:, :cut], observed[:, :cut], columns[:, : cut + horizon], groups=groups
    )
    tail, last = model.forward_patches(
        value[:, cut:], observed[:, cut:], columns[:, cut:], state, groups=groups
    )
    torch.testing.assert_close(torch.cat((head, tail), 1), whole, atol=1e-10, rtol=1e-10)
    for one, other in zip(end, last, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@family
def test_no_output_depends_on_later_inputs(name: str) -> None:
    model, readings = build_model(name), make_readings(1, T).nan_to_num(nan=1.0)
    readings.requires_grad_()
    columns, config = make_columns(model, 1, T).nan_to_num(nan=10.0).requires_grad_(), model.config
    for t in (0, 5, 13):
        forecasts, _ = model(readings, covariates=columns)
        total = forecasts[:, t].square().sum()
        by_reading, by_column = torch.autograd.grad(
            total, (readings, columns), materialize_grads=True
        )
        assert by_reading[:, t + 1 :].abs().max() == 0
        assert by_reading[:, t].abs().max() > 0
        # Each column up to now; after now those that are known, up to the horizon.
        seen = by_column[0].abs() > 0
        assert seen[t].all()
        ahead = torch.ones(config.n_columns, dtype=torch.bool)
        ahead[: config.n_past] = False
        ahead[config.n_past + config.n_known :][: config.n_static] = False
        assert (seen[t + 1 : t + 1 + config.horizon] == ahead).all()
        assert not seen[t + 1 + config.horizon :].any()


@family
@torch.no_grad()
def test_forecast_is_the_end_of_forward(name: str) -> None:
    model, readings = build_model(name), make_readings(3, T)
    columns = make_columns(model, 3, T)
    forecasts, _ = model(readings, covariates=columns)
    last = model.forecast(readings, columns)
    torch.testing.assert_close(last, forecasts[:, -1], atol=1e-10, rtol=1e-10)


@family
@torch.no_grad()
def test_a_silent_stream_keeps_its_memory(name: str) -> None:
    model = build_model(name)
    period = model.config.patch_length
    silent = torch.full((1, 2 * period, 3), torch.nan, dtype=torch.float64)
    _, before = model(torch.cat((make_readings(1, T), silent[:, :period]), 1))
    _, after = model(silent, before)
    memory = ("_c", "_n", "_m", "_h")
    for field, one, other in zip(model.state_fields(), before, after, strict=True):
        if field.name.endswith(memory):
            torch.testing.assert_close(one, other, atol=0, rtol=0)
        elif field.name.startswith("scaling"):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@family
@torch.no_grad()
def test_leading_gap_is_no_reading(name: str) -> None:
    model, readings = build_model(name), make_readings(1, T)
    lead = torch.full((1, 4 * model.config.patch_length, 3), torch.nan, dtype=torch.float64)
    late, _ = model(torch.cat((lead, readings), 1))
    alone, _ = model(readings)
    torch.testing.assert_close(late[:, lead.shape[1] :], alone, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_independent_channels_do_not_meet() -> None:
    model, readings = build_model("patch"), make_readings(2, T)
    changed = readings.clone()
    changed[..., 1] = torch.nan
    before, after = model(readings)[0], model(changed)[0]
    torch.testing.assert_close(before[..., [0, 2], :], after[..., [0, 2], :], atol=0, rtol=0)
    assert (before[..., 1, :] - after[..., 1, :]).abs().max() > 0


@family
@torch.no_grad()
def test_rows_of_a_batch_do_not_meet(name: str) -> None:
    model, readings = build_model(name), make_readings(3, T)
    torch.testing.assert_close(model(readings)[0][1:2], model(readings[1:2])[0])


@family
@torch.no_grad()
def test_quantiles_never_cross(name: str) -> None:
    forecasts, _ = build_model(name)(make_readings(4, T))
    assert (forecasts.diff(dim=-1) >= 0).all()


@torch.no_grad()
def test_forecast_follows_level_and_unit() -> None:
    model, readings = build_model("patch"), make_readings(2, 60).nan_to_num(nan=100.0)
    plain = model.forecast(readings)
    model.center.mul_(1000).add_(7)
    model.spread.mul_(1000)
    moved = model.forecast(1000 * readings + 7)
    torch.testing.assert_close(moved, 1000 * plain + 7, atol=1e-6, rtol=1e-9)


@family
@torch.no_grad()
def test_state_is_as_described(name: str) -> None:
    model = build_model(name)
    _, state = model(make_readings(2, T))
    for field, part, first in zip(model.state_fields(), state, model.initial_state(2), strict=True):
        assert part.shape == first.shape == (2, *field.shape)
        assert (first == field.initial).all()


@family
@torch.no_grad()
def test_float32_follows_float64(name: str) -> None:
    model, readings = build_model(name), make_readings(2, 200)
    truth = model(readings)[0]
    single = model.float()(readings)[0]
    error = (single - truth).abs() / model.spread[:, None]
    assert error.max() < 1e-3
    assert error.median() < 1e-5


@pytest.mark.parametrize("kind", ["plain", "mixed"])
def test_scale_is_what_each_channel_is_divided_by(kind: str) -> None:
    model = build_model(kind)
    readings = make_readings(2, 4)
    got = model.scale(readings).numpy()
    spread = model.spread.numpy()
    # Up to the memory of the span (4 readings of 8) the spread of the readings so far is plain.
    for t in range(4):
        seen = readings[:, : t + 1].numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing seen yet
            variance = np.nan_to_num(np.nanvar(seen, 1)) / spread**2
        np.testing.assert_allclose(got[:, t], np.sqrt(variance + 1e-2) * spread, rtol=1e-9)


@torch.no_grad()
def test_each_channel_has_its_own_vector() -> None:
    model = build_model("channel embedding")
    with pytest.raises(ValueError, match="`groups` is missing"):
        model.forward_patches(*model._fold(make_readings(1, 6)))
    wave = torch.randn(1, 12, 1, generator=torch.Generator().manual_seed(0)).double()
    same = wave * model.spread + model.center
    scaled = (model.forecast(same) - model.center[:, None]) / model.spread[:, None]
    assert (scaled[:, :, 0] - scaled[:, :, 1]).abs().min() > 1e-3
    model.channel.zero_()
    scaled = (model.forecast(same) - model.center[:, None]) / model.spread[:, None]
    torch.testing.assert_close(scaled[:, :, 0], scaled[:, :, 1])


def test_training_learns_the_vectors_of_channels() -> None:
    y = np.stack([ARRAY, -ARRAY], 1)
    forecaster = small(channel_embedding=True, max_steps=20).fit(y)
    first, second = forecaster.model_.channel
    assert (first - second).abs().max() > 1e-4
    own = forecaster.model_.forecast(torch.as_tensor(y[None, -16:]))
    np.testing.assert_allclose(own[0, :, :, 1].detach(), forecaster.predict(), rtol=1e-5)

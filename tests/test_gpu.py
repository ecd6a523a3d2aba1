"""The line on a CUDA device."""

import numpy as np
import pandas as pd
import pytest
import torch

from xlstm_ts import XLSTMForecaster

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_trains_to_the_loss_of_the_cpu(sine: pd.DataFrame) -> None:
    # Both cells, over 96 steps: with the default patch of a day the kernels would see 4.
    options = {"blocks": "ms", "patch_length": 1, "d_model": 16, "context_length": 96}
    options |= {"max_steps": 40, "dropout": 0.0}
    cpu, cuda = (
        XLSTMForecaster(12, random_state=0, device=device, **options).fit(sine)
        for device in ("cpu", "cuda")
    )
    losses = [[record.loss for record in one.history_] for one in (cpu, cuda)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2)
    np.testing.assert_allclose(cuda.predict(), cpu.predict(), rtol=5e-2)

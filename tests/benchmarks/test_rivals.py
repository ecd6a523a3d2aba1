import numpy as np
import pytest

from benchmarks._rivals import isolation_forest, moving_z, online_ar, pca, smoothed

RIVALS = [moving_z, online_ar, pca, isolation_forest]
KNOWN = 300


@pytest.fixture(scope="module")
def readings():
    rng = np.random.default_rng(0)
    z = np.zeros((500, 3))
    for t in range(1, 500):
        z[t, :2] = 0.9 * z[t - 1, :2] + rng.standard_normal(2)
    return z  # the last channel stands still


@pytest.mark.parametrize("rival", RIVALS)
def test_rival_is_causal(rival, readings):
    changed = readings.copy()
    changed[400:] += 5
    before, after = rival(readings, known=KNOWN), rival(changed, known=KNOWN)
    assert np.isfinite(before).all()
    np.testing.assert_allclose(before[:400], after[:400])
    assert after[400].sum() > before[400].sum()


@pytest.mark.parametrize("rival", [moving_z, online_ar, pca])
def test_rival_names_the_channel(rival, readings):
    changed = readings.copy()
    changed[400, 1] += 40
    assert rival(changed, known=KNOWN)[400].argmax() == 1
    changed[400, 2] += 100
    assert rival(changed, known=KNOWN)[400].argmax() == 2


def test_online_ar_leaves_noise_of_its_own_scale():
    noise = np.random.default_rng(0).standard_normal((2000, 1))
    error = online_ar(np.cumsum(noise, axis=0), known=1000)[1000:]
    # The mean of the absolute value of a normal variable.
    np.testing.assert_allclose(error.mean(), np.sqrt(2 / np.pi), rtol=0.1)


def test_smoothed_is_causal_and_of_all_channels():
    surprise = np.zeros((50, 4))
    surprise[20, 3] = 8
    score = smoothed(surprise, span=10)
    assert (score[:20] == 0).all()
    assert score.argmax() == 20
    np.testing.assert_allclose(score[20], np.log1p(4) * 2 / 11)

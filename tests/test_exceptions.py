"""Each error is ours and also the built-in one that a caller would already catch."""

import pytest

from xlstm_ts import exceptions


def test_the_warning_is_one_of_users() -> None:
    assert issubclass(exceptions.InterruptedWarning, UserWarning)
    assert "InterruptedWarning" in exceptions.__doc__


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("SeriesError", ValueError),
        ("TrainingError", FloatingPointError),
        ("CheckpointError", ValueError),
        ("BackendError", ImportError),
        ("ExportError", RuntimeError),
        ("StreamError", ValueError),
    ],
)
def test_tree(name: str, builtin: type[Exception]) -> None:
    error = getattr(exceptions, name)
    assert issubclass(error, exceptions.XLSTMError)
    assert issubclass(error, builtin)
    assert name in exceptions.__doc__
    assert str(error("what and how")) == "what and how"

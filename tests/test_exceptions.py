"""Each error is ours and also the built-in one that a caller would already catch."""

import pytest

from xlstm_ts import exceptions


@pytest.mark.parametrize("name", ["SeriesWarning", "InterruptedWarning", "BackendWarning"])
def test_warnings_are_those_of_users(name: str) -> None:
    assert issubclass(getattr(exceptions, name), UserWarning)
    assert name in exceptions.__doc__


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

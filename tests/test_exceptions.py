"""Each error is ours and also the built-in one that a caller would already catch."""

import pytest

from xlstm_ts import exceptions


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("SeriesError", ValueError),
        ("TrainingError", FloatingPointError),
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

"""The errors of the library.

    XLSTMError
    ├── SeriesError     (ValueError)          the data are not what a forecaster can use
    ├── TrainingError   (FloatingPointError)  the loss of a fit is not a finite number
    ├── CheckpointError (ValueError)          a fit cannot go on from the file that it was given
    ├── BackendError    (ImportError)         a package or device that was asked for is not there
    ├── ExportError     (RuntimeError)        a model could not be written as a verified graph
    └── StreamError     (ValueError)          a stream was given what its graph cannot take

Each is also the built-in error that a caller would already catch. Of warnings there are three, each
a UserWarning: SeriesWarning, InterruptedWarning and BackendWarning.
"""


class XLSTMError(Exception):
    """Base of every error that the library raises on its own behalf."""


class SeriesError(XLSTMError, ValueError):
    """The data are not a usable series; the message names column, position and cure."""


class TrainingError(XLSTMError, FloatingPointError):
    """A fit diverged; the message says what to lower."""


class CheckpointError(XLSTMError, ValueError):
    """A checkpoint is damaged, or of another fit; the message says what differs."""


class BackendError(XLSTMError, ImportError):
    """A back end was asked for whose package or device is missing."""


class ExportError(XLSTMError, RuntimeError):
    """A graph could not be built, or does not agree with the model it was built from."""


class StreamError(XLSTMError, ValueError):
    """A reading, a state or a snapshot does not fit the graph of the stream."""


class SeriesWarning(UserWarning):
    """The data can be used, but not as they are: the message says what was made of them."""


class InterruptedWarning(UserWarning):
    """A fit was interrupted; the message says at which step."""


class BackendWarning(UserWarning):
    """Something runs elsewhere than was asked for; the message says where, and what is missing."""

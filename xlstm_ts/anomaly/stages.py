"""What stages share: a state that can be taken out, kept in a file, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from xlstm_ts.exceptions import StreamError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]


def is_there(values: Floats) -> Mask:
    """Return which values are not missing; half the time of ~isnan at the size of a reading."""
    return values == values


def within(values: Floats, most: Floats | float) -> Floats:
    """Return values cut to +-`most`: numpy.clip in a third of the time at the size of a reading."""
    return np.minimum(np.maximum(values, -most), most)


class Stage:
    """A piece of the chain. What it carries from reading to reading is named in `STATE`."""

    STATE: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> Arrays:
        """Return a copy of the state: arrays by name, those of inner stages as "inner/name"."""
        state: Arrays = {}
        for name in self.STATE:
            value = getattr(self, name)
            if isinstance(value, Stage):
                state |= {f"{name}/{inner}": array for inner, array in value.state_dict().items()}
            else:
                state[name] = np.atleast_1d(np.array(value))
        return state

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state_dict` gave, to the bit.

        Raises
        ------
        StreamError
            Where names or shapes are those of another chain; nothing is then changed.
        """
        own = self.state_dict()
        wrong = own.keys() ^ state.keys()
        wrong |= {
            name for name in own.keys() & state.keys() if own[name].shape != state[name].shape
        }
        if wrong:
            raise StreamError(
                f"The state is of another detector: it differs in {', '.join(sorted(wrong))}. "
                "Restore it into the detector that it was taken from."
            )
        self._load(state)

    def _load(self, state: Mapping[str, NDArray[Any]]) -> None:
        for name in self.STATE:
            value = getattr(self, name)
            if isinstance(value, Stage):
                prefix = f"{name}/"
                inner = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
                value._load(inner)
            elif isinstance(value, np.ndarray):
                setattr(self, name, np.array(state[name], value.dtype))
            else:  # numbers of Python are several times faster one by one than those of numpy
                setattr(self, name, type(value)(state[name].item()))

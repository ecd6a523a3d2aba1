"""Slow feedback of the rate of alarms: in the long run each level is crossed as often as it says.

Each decade has a threshold that rises at a crossing and falls a little at every other reading, as
adaptive conformal inference moves its level (I. Gibbs and E. Candes, "Adaptive Conformal Inference
Under Distribution Shift", 2021, arXiv:2106.00170, equation 2). It is bounded, and a single event
raises it no more than half a decade: an anomaly that stays must not become the rule.
"""

from __future__ import annotations

from xlstm_ts.anomaly.stages import Stage

DECADES = (1.0, 2.0, 3.0, 4.0)
STEPS = (0.01, 0.03, 0.1, 0.25)  # decades that a crossing raises a threshold
FALLS = tuple(step * 10**-decade for step, decade in zip(STEPS, DECADES, strict=True))
LOWEST, HIGHEST = -1.0, 4.0
MOST_AT_ONCE = 0.5
NARROWEST = 1e-3  # between two thresholds
QUIET = (5, 50, 50, 50)  # readings below a threshold that end what counts as one event


class RateFeedback(Stage):
    """Corrects -log10 p so that each whole decade is crossed at its own rate.

    Attributes
    ----------
    shifts : tuple of float
        What is added to the thresholds 1, 2, 3 and 4.
    """

    STATE = ("shifts", "starts", "quiet")

    def __init__(self) -> None:
        self.shifts: tuple[float, ...] = (0.0,) * len(DECADES)
        self.starts = self.shifts  # of the event under way
        self.quiet: tuple[int, ...] = QUIET

    def correct(self, surprise: float) -> float:
        """Return -log10 p as the feedback has it."""
        below, reached = 0.0, 0.0
        for decade, shift in zip(DECADES, self.shifts, strict=True):
            threshold = max(decade + shift, below + NARROWEST)
            if surprise < threshold:
                return reached + (surprise - below) / (threshold - below) * (decade - reached)
            below, reached = threshold, decade
        return reached + surprise - below

    def update(self, corrected: float) -> None:
        """Take in a corrected score."""
        if corrected < DECADES[0]:  # as most are
            self.shifts = tuple([
                max(LOWEST, shift - fall) for shift, fall in zip(self.shifts, FALLS, strict=True)
            ])  # fmt: skip
            if self.quiet != QUIET:
                self.quiet = tuple(map(min, [one + 1 for one in self.quiet], QUIET))
            return
        shifts, starts, quiet = [*self.shifts], [*self.starts], [*self.quiet]
        for j, decade in enumerate(DECADES):
            if corrected >= decade:
                if quiet[j] >= QUIET[j]:
                    starts[j] = shifts[j]
                quiet[j] = 0
                most = min(HIGHEST, starts[j] + MOST_AT_ONCE)
                shifts[j] = max(shifts[j], min(most, shifts[j] + STEPS[j]))
            else:
                quiet[j] = min(quiet[j] + 1, QUIET[j])
                shifts[j] = max(LOWEST, shifts[j] - FALLS[j])
        self.shifts, self.starts, self.quiet = tuple(shifts), tuple(starts), tuple(quiet)

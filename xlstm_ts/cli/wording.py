"""What the library says, in the words of the command line: options and files, no Python."""

from __future__ import annotations

import re

# Parameters that have an option; others go by --set.
OPTIONS = {
    "backlog": "--backlog",
    "calendar": "--calendar",
    "channels": "--channels",
    "blocks": "--blocks",
    "context_length": "--context",
    "coverage": "--coverage",
    "horizon": "--horizon",
    "known_future": "--known",
    "margin": "--alert-outside",
    "max_steps": "--steps",
    "patch_length": "--patch",
    "quantiles": "--quantiles",
    "random_state": "--random-state",
    "series": "--series",
    "static": "--static",
    "target_transform": "--transform",
    "units": "--unit",
}
# By what is wrong: what to do about it in a file, where the library's cure is Python.
CURES = {
    "y.to_period(": "give as each time the first day of its month, quarter or year",
    "goes back in time": "sort its rows by their time; of many series, name the column by --id",
    "more than once": "keep one row of each time; of many series, name the column by --id",
    "irregular index": "round its times to one step, or average its rows over one, beforehand",
    "has a step of": "give rows at that step",
    "has the time zone": "give times of that zone",
    "only counts": "name a column of dates by --time",
}
PYTHON = re.compile(
    r"\b[yX](?:\.[a-z_]+[(.]|\[)|\bpandas\.|StreamModel\(|export_onnx\(|\.replace\(|index it"
)
BEFORE_CURE = ("; ", ", by ", ": ")


def for_command_line(message: object) -> str:
    """Return a message of the library as the command line has it."""
    text = _without_python(str(message)).replace("target_transform=", "--transform ")
    text = text.replace(", or begin a new stream", "; of many streams, name the field by --key")
    for name, option in OPTIONS.items():
        text = text.replace(f"`{name}`", option)
    text = re.sub(r"`([a-z]+(?:-[a-z]+)+)`", r"--\1", text)  # already an option
    text = re.sub(r"`[yX]` series `([^`]*)`", r"series \1", text)
    return re.sub(r"`[yX]`", "the data", text.replace("`y` column", "column"))


def _without_python(text: str) -> str:
    found = PYTHON.search(text)
    if found is None:
        return text
    cuts = (text.rfind(mark, 0, found.start()) for mark in BEFORE_CURE)
    told = text[: next((cut for cut in cuts if cut > 0), len(text))]
    cure = next((cure for wrong, cure in CURES.items() if wrong in text), None)
    return f"{told}; {cure}." if cure else f"{told}."

"""What the command line says is in words of the command line."""

import pytest

from xlstm_ts.cli.wording import for_command_line


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "`context_length` must be at least `patch_length` (24)",
            "--context must be at least --patch",
        ),
        ("`max_time` must be above 0", "`max_time` must be above 0"),
        ("`snapshot-every` must be at least 1", "--snapshot-every must be at least 1"),
        (
            "but target_transform='log' needs more: take 'log1p'",
            "but --transform 'log' needs more: t",
        ),
        ("`y` is too short: 20 readings", "the data is too short: 20 readings"),
        ("`y` series `north` has one reading", "series north has one reading"),
        ("`y` column 'load' is inf at position 7", "column 'load' is inf at position 7"),
        (
            "error: `X` lacks p at 4 times; give them",
            "error: the data lacks p at 4 times; give them",
        ),
        (
            "`y` goes back in time here; sort it: y.sort_index(), or y.sort_values([...]).",
            "the data goes back in time here; sort its rows by their time; of many series, name "
            "the column by --id.",
        ),
        (
            "`y` has an irregular index: 29 days; name its period: y.to_period('M').",
            "the data has an irregular index: 29 days; give as each time the first day of",
        ),
        (
            "`y` has a step of 2h, trained on h; bring it to that: y.resample('h').mean().",
            "the data has a step of 2h, trained on h; give rows at that step.",
        ),
        (
            "`time` is 5, but the fit had no zone: give its clock, by time.replace(tzinfo=None).",
            "`time` is 5, but the fit had no zone: give its clock.",
        ),
        ("it is a warm-up graph: write StreamModel(path, warm_up=p).", "it is a warm-up graph."),
        (
            "give each reading once, or begin a new stream.",
            "give each reading once; of many streams, name the field by --key.",
        ),
        ("a.csv has no column 'p'; it has ds, y.", "a.csv has no column 'p'; it has ds, y."),
    ],
)
def test_no_python(said: str, expected: str) -> None:
    assert for_command_line(said).startswith(expected)

"""Lines come whole, and are divided alike wherever one begins."""

import os
from pathlib import Path

import pytest

from xlstm_ts.cli.lines import BATCH, Line, NothingNow, batches, read_lines, skip_lines
from xlstm_ts.cli.stopping import Stop
from xlstm_ts.exceptions import StreamError


def arrivals(path: Path) -> list[object]:
    with path.open("rb") as file:
        return list(read_lines(file.fileno(), stop=Stop()))


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", []),
        (b"one", [b"one"]),
        (b"one\n\ntwo\n", [b"one", b"", b"two"]),
        (b"x" * 200_000 + b"\ntwo", [b"x" * 200_000, b"two"]),
    ],
)
def test_lines_of_a_file(content: bytes, texts: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    expected = [Line(number, text) for number, text in enumerate(texts, start=1)]
    assert arrivals(tmp_path / "file") == expected


def test_pipe_tells_where_nothing_more_is_there() -> None:
    reading, writing = os.pipe()
    found = read_lines(reading, stop=Stop())
    os.write(writing, b"one\ntw")
    assert [next(found), next(found)] == [Line(1, b"one"), NothingNow()]
    os.write(writing, b"o\n")
    os.close(writing)
    assert list(found) == [Line(2, b"two"), NothingNow()]
    os.close(reading)


def lines(first: int, last: int) -> list[Line]:
    return [Line(number, b"") for number in range(first, last + 1)]


def test_batches_do_not_wait() -> None:
    came = [Line(1, b""), Line(2, b""), NothingNow(), NothingNow(), Line(3, b"")]
    found = batches(came, every=1000)
    assert [[line.number for line in batch] for batch in found] == [[1, 2], [3]]


def test_batches_after_one_are_what_they_were() -> None:
    every = 3 * BATCH // 2
    whole = list(batches(lines(1, 5 * BATCH), every=every))
    assert {every, 2 * every} <= {batch[-1].number for batch in whole}
    for at, batch in enumerate(whole):
        rest = lines(batch[-1].number + 1, 5 * BATCH)
        assert list(batches(rest, every=every)) == whole[at + 1 :]


def test_skipping() -> None:
    assert list(skip_lines(iter(lines(2, 5)), 3)) == lines(4, 5)
    assert list(skip_lines(iter(lines(1, 5)), 5)) == []
    with pytest.raises(StreamError, match="after line 6, and the input has fewer"):
        skip_lines(iter(lines(1, 5)), 6)

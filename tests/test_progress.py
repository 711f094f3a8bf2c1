"""Progress is a bar on a terminal and a line now and then elsewhere; what is tracked passes through unchanged."""

import io

import pytest

from mmembed import progress as module
from mmembed.progress import clock, progress, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def said(monkeypatch, capsys):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    return lambda: capsys.readouterr().err


def test_things_pass_through_and_are_counted_after_they_are_done(said):
    assert list(track(iter("abc"), "read", total=3)) == ["a", "b", "c"]

    lines = said().splitlines()
    assert [line.split(",")[0] for line in lines] == ["read: 1/3", "read: 2/3", "read: 3/3"]
    assert lines[-1] == "read: 3/3, 0:00:00 left"


def test_a_block_says_how_much_it_did(said):
    with progress("embed", 100) as advance:
        advance(40)
        advance(0)
        advance(60)

    assert [line.split(",")[0] for line in said().splitlines()] == ["embed: 40/100", "embed: 40/100", "embed: 100/100"]


def test_without_a_total_no_time_is_promised(said):
    assert list(track((n for n in range(2)), "scan")) == [0, 1]

    assert said() == "scan: 1/?\nscan: 2/?\n"


def test_what_is_quick_says_nothing(capsys):
    list(track(range(5), "read"))

    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)

    with progress("embed", 10) as advance:
        advance(10)

    assert "embed" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()


def test_a_clock_counts_hours():
    assert [clock(0.4), clock(61), clock(3 * 3600 + 5)] == ["0:00:00", "0:01:01", "3:00:05"]

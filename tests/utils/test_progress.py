"""The progress bar: shown on stderr, silent where that is asked for, gone when closed."""

from __future__ import annotations

from utils.progress import ProgressBar


def test_a_bar_shows_title_share_and_values(capsys):
    with ProgressBar("reading", total=4) as bar:
        bar(1)
        bar.bar.mininterval = 0
        bar(4, shown={"loss": "0.5"}, title="reading on")
        bar.bar.refresh()
    err = capsys.readouterr().err
    assert "reading" in err
    assert "100%" in err
    assert "loss=0.5" in err


def test_nothing_is_shown_while_no_total_is_known_or_when_quiet(capsys):
    with ProgressBar("reading") as bar:
        bar(10, None)
        assert bar.bar is None
        bar(10, 20)
        assert bar.bar is not None
    with ProgressBar("reading", quiet=True, total=2) as bar:
        capsys.readouterr()
        bar(2)
    assert capsys.readouterr().err == ""


def test_it_never_passes_its_end_and_may_go_back():
    with ProgressBar("reading", quiet=True, total=2) as bar:
        bar(5)
        assert bar.total == 2
    with ProgressBar("reading", total=10) as bar:
        for done, expected in ((12, 10), (3, 3)):
            bar(done)
            assert bar.bar.n == expected

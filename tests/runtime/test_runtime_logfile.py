"""Logs know where the lives of a container begin, also when the file they are in is rotated away."""

from __future__ import annotations

from pathlib import Path

from control.runtime.logfile import LogFile, last_life, previous_life, tail


def test_the_lives_of_a_container_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    log = LogFile(path)
    log.mark_start()
    log.write(b"first\n")
    assert previous_life(path) is None
    assert last_life(path) == b"first\n"
    log.mark_start()
    assert (previous_life(path), last_life(path)) == (b"first\n", b"")
    log.write(b"second\n")
    log.mark_start()
    log.write(b"third\n")
    assert (previous_life(path), last_life(path)) == (b"second\n", b"third\n")
    log.close()
    log = LogFile(path)  # a supervisor later
    log.mark_start()
    log.write(b"fourth\n")
    log.close()
    assert (previous_life(path), last_life(path)) == (b"third\n", b"fourth\n")


def test_a_life_goes_on_across_a_rotation_and_is_cut_where_its_beginning_is_no_longer_kept(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    log = LogFile(path, limit=20)
    log.mark_start()
    log.write(b"old one\n")
    log.mark_start()
    log.write(b"new 1\n")
    log.write(b"new 2222\n")  # rotates: 14 bytes are there
    assert (previous_life(path), last_life(path)) == (b"old one\n", b"new 1\nnew 2222\n")
    log.write(b"new 333333\n")
    log.write(b"new 4\n")  # rotates again: the first file is gone
    assert (previous_life(path), last_life(path)) == (b"", b"new 2222\nnew 333333\nnew 4\n")
    log.mark_start()
    log.write(b"3\n")
    assert previous_life(path) == b"new 2222\nnew 333333\nnew 4\n"
    log.close()


def test_the_tail_is_of_the_last_life_without_blank_lines(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "app.log")
    log.mark_start()
    log.write(b"before\n")
    log.mark_start()
    log.write(b"one\n\n  two  \nthree\n\n")
    log.close()
    assert tail(tmp_path / "app.log", 2) == ["  two", "three"]
    assert tail(tmp_path / "app.log", 9) == ["one", "  two", "three"]


def test_damaged_marks_make_one_long_life(tmp_path: Path) -> None:
    (tmp_path / "app.log").write_text("a\nb\n")
    (tmp_path / "app.starts").write_text("[[0")
    assert last_life(tmp_path / "app.log") == b"a\nb\n"
    assert previous_life(tmp_path / "app.log") is None
    assert last_life(tmp_path / "none.log") == b""

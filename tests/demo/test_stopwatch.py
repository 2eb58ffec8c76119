from pathlib import Path

from sds_clip.demo.stopwatch import Stopwatch


def test_a_later_start_counts_on_from_the_last_tick(tmp_path: Path) -> None:
    file = tmp_path / "run" / "seconds"
    first = Stopwatch(file)
    first.tick()
    kept = float(file.read_text())
    assert 0 < kept <= first.seconds
    file.write_text("100.0\n")
    second = Stopwatch(file)
    assert second.seconds > 100
    second.tick()
    assert Stopwatch(file).seconds > float(file.read_text()) > 100


def test_what_passed_since_the_last_tick_is_lost(tmp_path: Path) -> None:
    Stopwatch(tmp_path / "seconds")
    assert not (tmp_path / "seconds").exists()

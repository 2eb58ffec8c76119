from pathlib import Path

import pytest
import torch

from bench import gpu, gpu_parts
from bench.gpu import Part, Plan
from bench.memory import Memory


def test_machine_without_a_gpu_is_told_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^There is no GPU that torch .* can use.*\.$"):
        gpu.main(["--out", str(tmp_path / "page.md")])
    assert list(tmp_path.iterdir()) == []


def test_page_tells_how_each_part_ended_and_the_parts_after_a_failed_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = [
        Part("Refused", ["bench.gpu_parts", "--part", "nowhere"], 100),
        Part("Endless", ["http.server", "--bind", "127.0.0.1", "0"], 1),
        Part("Text", ["platform"], 100, is_text=True),
        Part("Markdown", ["platform"], 100),
    ]
    monkeypatch.setattr(gpu, "parts", lambda plan: planned)
    with pytest.raises(SystemExit) as caught:
        gpu.main(["--device", "cpu", "--cache", str(tmp_path), "--out", str(tmp_path / "page.md")])
    assert caught.value.code == 1
    page = (tmp_path / "page.md").read_text()
    assert "Without a GPU. torch" in page
    for row in (
        "| Refused | FAILED with exit code 2 |",
        "| Endless | STOPPED at its limit |",
        "| Text | done |",
    ):
        assert row in page
    refused, text, markdown = (page.split(f"## {name}\n\n")[1] for name in ("Refused", "Text", "Markdown"))
    assert "invalid choice: 'nowhere'" in refused.split("## Endless")[0]
    assert text.startswith("done. The end of its output:\n\n````text\nLinux")
    assert markdown.startswith("Linux")


def test_parts_end_within_forty_minutes_and_a_short_run_has_the_same_ones() -> None:
    full, small = gpu.parts(Plan()), gpu.parts(Plan(device="cpu", size="small"))
    assert [part.name for part in full] == [part.name for part in small]
    assert sum(part.limit_s + gpu.TO_STOP_S for part in full) <= 40 * 60
    assert all("--quick" in part.arguments for part in small if not part.is_text)


def test_memory_stands_beside_its_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_parts, "measure_memory", lambda *_: Memory(before_mib=30.0, step_mib=12.0))
    gpu_parts.main(["--part", "memory", "--device", "cpu", "--quick", "--cache", str(tmp_path)])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[-3:]]
    assert [row[0] for row in rows] == ["| clip with swaps", "| sds", "| full"]
    estimates = [float(row[1]) for row in rows]
    assert 0 < estimates[0] < estimates[1] <= estimates[2]
    assert {tuple(row[2:5]) for row in rows} == {("30", "12", "42")}


@pytest.mark.long
@pytest.mark.slow
def test_short_run_on_the_cpu_does_every_part(tmp_path: Path) -> None:
    gpu.main(["--device", "cpu", "--quick", "--cache", str(tmp_path), "--out", str(tmp_path / "page.md")])
    page = (tmp_path / "page.md").read_text()
    assert page.count(" | done | ") == len(gpu.parts(Plan()))
    for beginning in (
        "| sds-clip, float32 | 4 |",
        "| noise-contrast | ",
        "| demo teacher, 2 draws |",
        "| full | ",
    ):
        assert beginning in page

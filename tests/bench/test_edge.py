"""Samples are counted for the innermost part that a frame belongs to."""

from bench.edge import by_part, part_of

LOOP = "run (uvicorn/server.py:75);run_until_complete (uvloop/loop.pyx:1518)"
ENCODE = (
    "_in_chunks (app/serving/forward.py:150);encode_images (models/mixed.py:77);linear (torch/nn/linear.py:1)"
)


def test_innermost_frame_of_a_part_decides() -> None:
    assert part_of(ENCODE.split(";")) == "forward pass"
    assert part_of([*LOOP.split(";"), "read (app/bodies.py:55)"]) == "JSON and its validation"
    assert part_of(LOOP.split(";")) in {"HTTP", "event loop"}
    assert part_of(["wait (threading.py:1)"]) == "other"


def test_counts_become_seconds() -> None:
    idle = "run (threading.py:982);_worker (concurrent/futures/thread.py:81)"
    stacks = f"{idle} 50\n{ENCODE} 30\n{LOOP};image_bytes (app/images.py:50) 10\n{ENCODE} 20"
    assert by_part(stacks, rate=100) == {"forward pass": 0.5, "base64 to bytes": 0.1}

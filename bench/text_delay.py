"""How long another caller waits while one request with many long texts is computed.

python -m bench.text_delay [--texts 400] [--chars 4080] [--model demo]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

from bench.decode_memory import serving
from bench.servers import post


def main() -> None:
    """Print how long the long request took, and the longest and the median of the others meanwhile."""
    parser = argparse.ArgumentParser(prog="python -m bench.text_delay", description=__doc__)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--chars", type=int, default=4080)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    texts = [f"{number} ".ljust(options.chars, "a") for number in range(options.texts)]
    with (
        tempfile.TemporaryDirectory() as cache,
        serving(options.model, Path(cache), SDS_CLIP_DEADLINE_S="600") as process,
    ):

        def ask(texts: list[str]) -> float:
            started_at = time.monotonic()
            status, answer = post(process.port, "/embed", json.dumps({"texts": texts}), timeout_s=600)
            assert status == 200, answer
            return time.monotonic() - started_at

        alone_s = sorted(ask([f"warm {number}"]) for number in range(20))
        took_s: list[float] = []
        long = threading.Thread(target=lambda: took_s.append(ask(texts)))
        long.start()
        others_s: list[float] = []
        while long.is_alive():
            others_s.append(ask([f"other {len(others_s)}"]))
        others_s.sort()
        print(
            f"{options.texts} texts of {options.chars} letters took {took_s[0]:.2f} s; another caller's text took "
            f"{others_s[len(others_s) // 2]:.3f} s at the median and {others_s[-1]:.3f} s at most "
            f"({alone_s[len(alone_s) // 2]:.3f} s alone)"
        )


if __name__ == "__main__":
    main()

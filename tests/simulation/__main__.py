"""Runs the schedules of seeds, and shrinks the first that fails."""

import sys
import time

from tests.simulation.schedule import simulation

with simulation() as made:
    first, last = int(sys.argv[1]), int(sys.argv[-1])
    began = time.perf_counter()
    for seed in range(first, last + 1):
        outcome = made.run(seed, trace=first == last)
        if first == last:
            print("\n".join(outcome.trace))
            print(outcome.commits, len(outcome.made))
        if outcome.failure is not None:
            print(seed, outcome.failure)
            if outcome.failure.__cause__ is not None:
                import traceback

                traceback.print_exception(outcome.failure.__cause__)
            if first == last:
                break
    took = time.perf_counter() - began
    print(f"{took:.1f} s, {(last - first + 1) / took * 60:.0f} a minute")

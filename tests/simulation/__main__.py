"""Runs the schedule of a seed, and shrinks it if it fails."""

import argparse
import sys
import time
from contextlib import nullcontext

from tests.simulation.planted import PLANTED
from tests.simulation.schedule import simulation, told


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--to", type=int, help="run all seeds up to this one, until one fails")
    parser.add_argument("--planted", help="with the planted fault whose name begins so")
    parser.add_argument("--trace", action="store_true", help="say what happens")
    args = parser.parse_args()
    planted = [each.applied() for each in PLANTED if args.planted and each.name.startswith(args.planted)]
    began = time.perf_counter()
    with simulation() as made, planted[0] if planted else nullcontext():
        if args.trace:
            print("\n".join(made.run(args.seed, trace=True).trace))
        for seed in range(args.seed, max(args.seed, args.to or 0) + 1):
            if (failing := told(made, seed)) is not None:
                print(failing)
                return 1
    took_s = time.perf_counter() - began
    count = seed - args.seed + 1
    print(f"{count} schedules in {took_s:.1f} s, {60 * count / took_s:.0f} a minute: nothing is wrong.")
    return 0


sys.exit(main())

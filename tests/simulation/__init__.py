"""A deterministic simulation of the system: the real code under a scheduler that a seed drives.

python -m tests.simulation 4711        run the schedule of one seed, and shrink it if it fails

scheduler.py    processes and their threads, as greenlets of one thread; the clock; the choices of a seed
faults.py       the database, files and messages, which fail as the choices say
actors.py       who takes part: service, workers, operator, cleanup
serving.py      a serving process that follows the aliases
invariants.py   what must hold after each commit, and at the end
schedule.py     one schedule from its beginning to its end
shrink.py       from a schedule that fails to a short one
planted.py      faults that are put into the real code, each of which must be found
"""

"""A job's process with a stall, as worker/job_process.py is run."""

from tests.stalls import install
from worker.job_process import main

if __name__ == "__main__":
    install()
    main()

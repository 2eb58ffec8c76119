"""A job's process with a stall, as worker/job_process.py is run."""

from sds_clip.worker.job_process import main
from tests.stalls import install

if __name__ == "__main__":
    install()
    main()

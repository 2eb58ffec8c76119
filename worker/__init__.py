"""Workers: one supervisor per device slot and for checks beside it, and one process per job.

    main.py           a worker from start to end, with a slot for its device and one for checks
      slot.py           claims jobs, runs one process for each, ends those that stall or are asked to stop
        supervised.py     a child process: its pipe, its steps, its end
      celery_app.py     wake-ups
      reaper.py         periodic cleanup: jobs whose worker is gone, retention of files
      enlisting.py      submits the checks of data sets
    job_process.py    a job's process: the lease, its reports, how it ends
      finetune_job.py   parts -> training -> version -> promotion
        training_progress.py   what a training reports to the store and the supervisor
      evaluate_job.py   a benchmark -> results.json and report.html
      check_job.py    the check of a data set, under limits
    valkey.py         the broker of the embedded run

Imports only the parts of `app` that know no HTTP; `app` never imports this package.
"""

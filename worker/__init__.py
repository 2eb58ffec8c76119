"""Workers: a supervisor for each device slot, and one process for each job.

    main.py           a worker from start to end
      slot.py           claims jobs, runs one process for each, ends what stalls or is asked to stop
        supervised.py     a child process: its pipe, its steps, its end
      celery_app.py     wake-ups
      reaper.py         wake-ups again, jobs whose worker is gone, what is kept how long
      checker.py        a process for data sets that wait for their check
    job_process.py    a job's process: the lease, what it tells, how it ends
      finetune_job.py   parts -> training -> version -> promotion
      evaluate_job.py   a benchmark -> results.json and report.html
    check_process.py  a checker's process
    valkey.py         the broker of the embedded run

Imports the parts of `app` that know no HTTP; `app` never imports this.
"""

"""Faults put into a whole running system, one by one (`bench.faults.table`) and many at once (`bench.faults.soak`).

system      two services, two workers, a broker and a database in real processes; proxy: the network between them
callers     who asks the services all along; checks: what has to hold after every fault
kinds       every kind of fault; injections, storage, weights: how each is put in; crash_points: where processes die
"""

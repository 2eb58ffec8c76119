"""Fault injection into a whole running system: one by one (`bench.faults.table`) or many at once
(`bench.faults.soak`).

system      two services, two workers, a broker and a database in real processes; proxy: the network between
them
callers     clients that call the services continuously; checks: what must hold after every fault
kinds       every kind of fault; injections, storage, weights: how each is injected; crash_points: where
processes die
"""

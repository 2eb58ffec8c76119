"""Fault injection into a running system: one fault at a time (`bench.faults.table`), or many (`bench.faults.soak`).

system      two services, two workers, a broker and a database in real processes (parts); proxy: the network
callers     a client for each service, which asks continuously; checks: what must hold after every fault
kinds       every kind of fault; injections, storage, weights, crash_points: how each is injected
"""

"""The embedded run: the whole system on one machine by one command.

system.py      what is started, in which order, and how it ends
child.py       one child process
restarts.py    what dies is started again, later each time it does so soon
address.py     where the service will listen, and whether it is there
orphans.py     how a child ends that has lost its supervisor
"""

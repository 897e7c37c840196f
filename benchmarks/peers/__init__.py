"""Broadway beside the task queues that people know: the same load on the same machine in the same run.

`make bench-peers` installs them, starts their brokers, measures and stops everything. Each queue has a file of its own
here, `*_peer.py`, with its settings and what its documentation says of them.
"""

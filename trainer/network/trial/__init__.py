"""Try, before the first step, whether a network gives equal bits on any number of processes.

`trial` decides what is tried and what its result means, `processes` simulates the processes,
`comparison` compares their bits, `attributes` and `counters` find state in plain Python.
"""

"""Try, before the first step, whether a network gives equal bits on any number of processes.

`trial` decides what is tried and what its result means, `simulated_process` is a process of the
trial, `comparison` compares their bits, `attributes` and `counters` find state in plain Python.
"""

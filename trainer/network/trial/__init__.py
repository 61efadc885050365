"""Try, before the first step, whether a network gives equal bits on any number of processes."""

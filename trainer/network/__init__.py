"""The network of a run: built, filled with weights, its state known, tried before the first step.

It imports `data` and the rooms below; the networks themselves are in the package `models`.
"""

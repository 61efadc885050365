"""The processes of a run: how they start, talk, lose one of them, stop and end.

It imports `base` and `config`.
"""

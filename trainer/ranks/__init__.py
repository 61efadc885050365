"""The processes of a run: how they start, exchange results, stop, and end when one is lost.

`processes` counts them and their threads, `process_group` connects them, `collectives` holds what
all of them do together, `lost_ranks` finds the one that failed, `preemption` handles requests to
stop, and `exit_codes` turns the end of a command into an exit code and a message. It imports `base`
and `config`.
"""

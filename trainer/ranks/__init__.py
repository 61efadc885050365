"""The processes of a run: how they start, exchange results, stop, and end when one is lost.

`processes` counts them and their threads, `local_processes` starts them where no launcher has,
`launch_settings` refuses what a launcher would change, `process_group` connects them by what they
agree on in `backends`, `collectives` has what all of them do together, `lost_ranks` finds the one
that failed, `nccl` asks it to on GPUs, `preemption` handles requests to stop, and `exit_codes`
turns the end of a command into an exit code and a message. `cgroups` reads the limits of a
container, `caller_settings` puts torch's settings back in a program that calls us. It imports
`base` and `config`.
"""

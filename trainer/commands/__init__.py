"""The commands: one module or package each, with `add_arguments(parser)` and `run(arguments)`.

`options` has the arguments that several commands take, and the errors of files that they write;
`recompute` is what verify and replay share.
"""

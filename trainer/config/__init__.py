"""What a run is told: keys, their defaults and rules, YAML and the command line, plug-ins.

`schema` says which keys there are, `rules` which values they may have, `command_line` reads them
and `key_errors` says what is wrong with one; `plugins` finds parts that users add. It imports
`base` and neither torch nor numpy, so that `--help` and a mistyped key answer at once.
"""

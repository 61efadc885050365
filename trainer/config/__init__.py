"""The configuration of a run: keys, their defaults and rules, YAML and the command line, plug-ins.

`schema` has the keys, `command_line` reads them from YAML and the command line, `key_errors` has
the messages about a wrong key or a value of a wrong type, `rules` those about a value that is out
of range. `stored_config` reads a run's own config.yaml, `same_run` compares two configurations.
`plugins` finds parts that users add, `user_files` runs their files, `plugin_checks` checks their
names. It imports `base` and neither torch nor numpy, so that `--help` and a mistyped key answer at
once.
"""

"""Finished runs: read, load, compute again, compare and export them.

`run_record` reads a run's folder, `trained_model` loads its model, `evaluation_images` are the
images to test it on. `recomputation` computes a run again, `segments` are its parts,
`record_comparison` says where it differs; `receipts` checks its receipt, `signatures` signs it.
`comparison` compares two runs, `export/` writes the model for other programs. It imports `run` and
the rooms below.
"""

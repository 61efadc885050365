"""Trackers that follow a run outside its folder. One that fails or hangs never stops the run."""

"""Trackers that follow a run outside its folder. No fault of theirs costs a training."""

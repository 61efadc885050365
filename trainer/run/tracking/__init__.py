"""Following a run elsewhere than in its folder. No fault of a tracker costs a training."""

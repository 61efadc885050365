"""Random transforms of the training images, each a pure function of seed, epoch and sample."""

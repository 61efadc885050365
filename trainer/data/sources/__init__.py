"""Read images and labels: one module for each format or known set."""

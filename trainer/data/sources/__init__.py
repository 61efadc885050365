"""Where images and labels come from: one module for each format or set."""

"""What the processes of a run do together, and how they start, speak, fail and end."""

"""`verify` of receipts, alone and of runs."""

"""What generated code has in common, whatever machine it is for: a loop-level form, builders for it, and its C-family printer."""

"""What the panel knows and can do; no widgets."""

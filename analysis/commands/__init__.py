"""What `ablate report` and `ablate watch` call."""

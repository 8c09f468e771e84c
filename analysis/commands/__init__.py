"""Commands `ablate report` and `ablate watch`."""

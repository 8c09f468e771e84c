"""View of a running study, read from its folders without contact to its processes."""

"""The config of a run and the options of commands: read, composed, checked, documented."""

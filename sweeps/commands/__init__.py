"""Commands of ``sweeps``: each module has ``main(config) -> exit code``."""

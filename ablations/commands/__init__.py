"""The commands of ``ablations``: each module has ``main(config) -> exit code``."""

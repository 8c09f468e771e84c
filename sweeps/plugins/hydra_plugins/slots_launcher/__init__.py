"""Hydra launcher plugin: ``hydra/launcher=slots``."""

"""Hydra sweeper plugin: ``hydra/sweeper=ablations``."""

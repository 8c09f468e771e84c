"""Launchers: slots of one machine, and the watch over a Slurm queue."""

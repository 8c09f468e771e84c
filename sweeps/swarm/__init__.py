"""Swarms: mixtures with the metrics of their runs, from studies or from tables, and their fit."""

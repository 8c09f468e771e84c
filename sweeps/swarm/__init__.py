"""Swarms: mixtures with what runs of them measured, from studies or from tables, and their fit."""

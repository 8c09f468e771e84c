"""Evaluation: tasks, prompts, metrics, the lighteval adapter, the scoring loop and the score."""

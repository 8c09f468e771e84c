"""Mixtures, schedules, the sampler that serves them, and the audit of what was really read."""

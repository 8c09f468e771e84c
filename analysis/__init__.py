"""Frames, figures, reports and notebooks over the records that runs and studies leave on disk."""

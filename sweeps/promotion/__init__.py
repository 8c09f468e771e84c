"""Promotions: gates, the frozen full run, its sealed prediction, and the later comparison."""

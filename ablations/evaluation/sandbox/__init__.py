"""Sandbox that runs generated code."""

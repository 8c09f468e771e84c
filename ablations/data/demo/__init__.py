"""The demo's real text and benchmark items, from packages of the registry."""

"""From sources to token stores: the catalogue, preparation, the store, demo and synthetic text."""

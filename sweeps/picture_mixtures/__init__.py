"""Mixtures of pictures, videos and text that others published, as configs of this platform."""

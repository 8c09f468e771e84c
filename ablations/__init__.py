"""One run, from sources to a score.

The packages below import one another in one direction only, and a test proves it::

    data ──▶ mixture ──▶ training ──▶ evaluation ──▶ run

``ablations`` imports neither ``sweeps`` (many runs) nor ``analysis`` (figures and reports).
"""

__version__ = "0.1.0"

__all__ = ["__version__"]

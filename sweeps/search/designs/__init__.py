"""Designs: points to run before a surrogate can be fitted.

>>> from sweeps.search.space import SearchSpace, SearchSpaceSpec, SimplexSpec
>>> spec = SearchSpaceSpec(mixtures={"mixture.weights": SimplexSpec(sources=("a", "b"))})
>>> points = design(SearchSpace.build(spec), "sobol", 4, seed=0)
>>> len(points), sorted(points[0])
(4, ['mixture.weights'])
"""

from sweeps.search.designs.baselines import baselines, own_point
from sweeps.search.designs.design import DESIGNS, Design, DesignOptions, design, distances
from sweeps.search.designs.levels import distinct

__all__ = [
    "DESIGNS",
    "Design",
    "DesignOptions",
    "baselines",
    "design",
    "distances",
    "distinct",
    "own_point",
]

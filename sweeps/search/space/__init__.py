"""Search space: bounded simplexes, other parameters, and the maps to a unit box."""

from sweeps.search.space.caps import EpochCaps
from sweeps.search.space.parameter import Parameter, Value
from sweeps.search.space.polytope import Polytope
from sweeps.search.space.simplex import BoundedSimplex, Floats
from sweeps.search.space.space import Point, SearchSpace
from sweeps.search.space.specs import GroupSpec, ParameterSpec, SearchSpaceSpec, SimplexSpec

__all__ = [
    "BoundedSimplex",
    "EpochCaps",
    "Floats",
    "GroupSpec",
    "Parameter",
    "ParameterSpec",
    "Point",
    "Polytope",
    "SearchSpace",
    "SearchSpaceSpec",
    "SimplexSpec",
    "Value",
]

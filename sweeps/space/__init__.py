"""The search space: bounded simplexes, parameters beside them, and the maps to a unit box."""

from sweeps.space.caps import EpochCaps
from sweeps.space.parameter import Parameter, Value
from sweeps.space.polytope import Polytope
from sweeps.space.simplex import BoundedSimplex, Floats
from sweeps.space.space import Point, SearchSpace
from sweeps.space.spec import GroupSpec, ParameterSpec, SearchSpaceSpec, SimplexSpec

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

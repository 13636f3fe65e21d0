"""Whole models: how their parameters are made, by which rules, and what they are."""

from jaxinit.model import recipes as recipes
from jaxinit.model._assignments import Assignment as Assignment
from jaxinit.model._assignments import Assignments as Assignments
from jaxinit.model._describe import Description as Description
from jaxinit.model._describe import Parameter as Parameter
from jaxinit.model._describe import describe as describe
from jaxinit.model._init import InitFunction as InitFunction
from jaxinit.model._init import jit_init as jit_init
from jaxinit.model._paths import key_of as key_of
from jaxinit.model._paths import named as named
from jaxinit.model._plan import Plan as Plan
from jaxinit.model._rules import Rule as Rule
from jaxinit.model._rules import preview as preview
from jaxinit.model._rules import reinit as reinit

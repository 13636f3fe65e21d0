"""Whole models: how their parameters are made, by which rules, and what they are."""

from jaxinit.model import recipes as recipes
from jaxinit.model._describe import Description as Description
from jaxinit.model._describe import Parameter as Parameter
from jaxinit.model._describe import describe as describe
from jaxinit.model._fill.init_function import InitFunction as InitFunction
from jaxinit.model._fill.init_function import jit_init as jit_init
from jaxinit.model._fill.plan import Plan as Plan
from jaxinit.model._rules.assignments import Assignment as Assignment
from jaxinit.model._rules.assignments import Assignments as Assignments
from jaxinit.model._rules.reinit import Rule as Rule
from jaxinit.model._rules.reinit import preview as preview
from jaxinit.model._rules.reinit import reinit as reinit

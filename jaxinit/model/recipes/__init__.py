"""Recipes: how well-known models are initialized, as lists of rules for `reinit`.

Each function returns a plain list of (pattern, what), which can be changed, cut and
joined like any list: rules that stand first win. A recipe tells what a parameter is
from names and sizes (`jaxinit.model._rules.conventions`): those of Flax, Haiku,
Equinox, torch and Hugging Face, with and without the collection ``params``. Where names
do not tell, its arguments do: patterns as in rules, each of which must match.

A recipe has a rule for every weight, bias and norm. If it does not find a part that
defines it, a matrix has no rule, or the axes of a kernel can be read in two ways,
`reinit` and `preview` raise and name the argument or rule that helps.

Recipes have laws for single layers: name parameters that `nn.scan` or `nn.vmap` stacks
by ``reinit(..., stacked="**/layers/**")``.

``layers`` is the number of blocks L; each transformer block adds two branches to the
residual stream.
"""

from jaxinit.model.recipes._blocks import *  # noqa: F403
from jaxinit.model.recipes._depth import *  # noqa: F403
from jaxinit.model.recipes._language import *  # noqa: F403
from jaxinit.model.recipes._others import *  # noqa: F403
from jaxinit.model.recipes._states import *  # noqa: F403
from jaxinit.model.recipes._torch import *  # noqa: F403
from jaxinit.model.recipes._vision import *  # noqa: F403

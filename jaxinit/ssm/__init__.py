"""State spaces and linear recurrences: Mamba, S4D, HiPPO, LRU, RG-LRU.

Each builder is for one parameter of a layer, in the form in which the authors' code
stores it: rates as logarithms, steps before a softplus. `hippo` and `lru_gamma_log`
return arrays, since they depend on one another.
"""

from jaxinit.ssm._diagonal import log_dt as log_dt
from jaxinit.ssm._diagonal import s4d as s4d
from jaxinit.ssm._hippo import Hippo as Hippo
from jaxinit.ssm._hippo import hippo as hippo
from jaxinit.ssm._hippo import hippo_legs as hippo_legs
from jaxinit.ssm._mamba import mamba2_a_log as mamba2_a_log
from jaxinit.ssm._mamba import mamba_a_log as mamba_a_log
from jaxinit.ssm._mamba import mamba_dt_bias as mamba_dt_bias
from jaxinit.ssm._mamba import mamba_dt_kernel as mamba_dt_kernel
from jaxinit.ssm._unit_circle import lru_gamma_log as lru_gamma_log
from jaxinit.ssm._unit_circle import lru_nu_log as lru_nu_log
from jaxinit.ssm._unit_circle import lru_theta_log as lru_theta_log
from jaxinit.ssm._unit_circle import rg_lru_a as rg_lru_a

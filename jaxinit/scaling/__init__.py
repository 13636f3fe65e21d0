"""Width and depth transfer: tune a small model, start a large one."""

from jaxinit.scaling._by_depth import completep as completep
from jaxinit.scaling._by_depth import depth_mup as depth_mup
from jaxinit.scaling._by_depth import u_mup as u_mup
from jaxinit.scaling._by_width import mean_field as mean_field
from jaxinit.scaling._by_width import mup as mup
from jaxinit.scaling._by_width import ntk as ntk
from jaxinit.scaling._by_width import spectral as spectral
from jaxinit.scaling._by_width import standard as standard
from jaxinit.scaling._coordinate_check import coordinate_check as coordinate_check
from jaxinit.scaling._coordinate_report import CoordinateReport as CoordinateReport
from jaxinit.scaling._row import ScaledParameter as ScaledParameter
from jaxinit.scaling._scale import Scale as Scale

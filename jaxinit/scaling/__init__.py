"""Width and depth transfer: tune a small model, start a large one."""

from jaxinit.scaling._row import ScaledParameter as ScaledParameter

"""Low-rank adapters of weights that are loaded, and how they begin."""

from jaxinit.lora._adapter import Adapter as Adapter
from jaxinit.lora._attach import Attached as Attached
from jaxinit.lora._attach import attach as attach
from jaxinit.lora._methods import lora as lora
from jaxinit.lora._methods import lora_ga as lora_ga
from jaxinit.lora._methods import mica as mica
from jaxinit.lora._methods import olora as olora
from jaxinit.lora._methods import orthogonal as orthogonal
from jaxinit.lora._methods import pissa as pissa

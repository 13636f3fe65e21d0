"""How the variance of a signal, and of its gradient, changes from layer to layer."""

from jaxinit.signal import theory as theory
from jaxinit.signal._check import check as check
from jaxinit.signal._judge.findings import Finding as Finding
from jaxinit.signal._judge.findings import Layer as Layer
from jaxinit.signal._recommend import Recommendation as Recommendation
from jaxinit.signal._recommend import recommend as recommend
from jaxinit.signal._report.report import SignalReport as SignalReport

"""What the command line uses of the lab; it imports nothing else from the lab's rooms.

``jaxinit compare`` does what `compare` does: it designs an experiment, opens the files,
and runs; ``jaxinit transfer`` designs and trains a sweep. In between they turn errors
into single lines, show the progress of training, and print a table instead of returning
results.
"""

from jaxinit.lab._compare import DEFAULT_INITIALIZERS as DEFAULT_INITIALIZERS
from jaxinit.lab._result.statistics import median as median
from jaxinit.lab._show._transfer_table import list_columns as list_columns
from jaxinit.lab._show._transfer_table import make_table as make_table
from jaxinit.lab._show.comparison import Comparison as Comparison
from jaxinit.lab._show.log import Log as Log
from jaxinit.lab._show.table import markdown as markdown
from jaxinit.lab._show.table import table as table
from jaxinit.lab._show.transferred import TransferResult as TransferResult
from jaxinit.lab._train._finished import Finished as Finished
from jaxinit.lab._train.checkpoint import Checkpoint as Checkpoint
from jaxinit.lab._train.checkpoint import Unreadable as Unreadable
from jaxinit.lab._train.grid import Grid as Grid
from jaxinit.lab._train.grid import block_length as block_length
from jaxinit.lab._train.processes import is_first as is_first
from jaxinit.lab._train.processes import join as join
from jaxinit.lab._transfer import Moment as Moment
from jaxinit.lab._transfer import train_sweep as train_sweep
from jaxinit.lab._tried._sweep import LEFT_OUT as LEFT_OUT
from jaxinit.lab._tried._sweep import WIDTHS as WIDTHS
from jaxinit.lab._tried._sweep import Sweep as Sweep
from jaxinit.lab._tried._sweep import design_sweep as design_sweep
from jaxinit.lab._tried._sweep import list_parameterizations as list_parameterizations
from jaxinit.lab._tried.data import Task as Task
from jaxinit.lab._tried.experiment import Experiment as Experiment
from jaxinit.lab._tried.experiment import design as design
from jaxinit.lab._tried.optimizers import read_optimizer as read_optimizer
from jaxinit.lab._tried.settings import DATA as DATA
from jaxinit.lab._tried.settings import MACHINE as MACHINE
from jaxinit.lab._tried.settings import OPTIONS as OPTIONS
from jaxinit.lab._tried.settings import Settings as Settings
from jaxinit.lab._tried.tasks import TASKS as TASKS
from jaxinit.lab.training import open_files as open_files
from jaxinit.lab.training import run as run

"""Records runs in MLflow, Weights & Biases or TensorBoard."""

from pairmatch.tracking.parameters import run_parameters as run_parameters
from pairmatch.tracking.tracker import Tracker as Tracker

"""The stages of the pipeline, one package each, and what they share in ``components.common``."""

import gc

# Torch and MLflow make millions of objects that stay. Python looks for garbage among them after each 700 new ones
# unless it is told otherwise, which takes a third of the time in which a step starts.
gc.set_threshold(50_000)

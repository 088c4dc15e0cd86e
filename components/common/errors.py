"""Errors that a user can act on.

The text of each is one sentence that says what is wrong, names the culprit and says what to do. A step that ends with
one of them prints that sentence and no traceback; any other exception is a fault of ours and keeps its traceback.
"""


class PipelineError(Exception):
    """Something a user can understand and mend."""


class InputError(PipelineError):
    """What was given (a file, a shard, a model, a setting) cannot be used."""


class StorageError(PipelineError):
    """The artifact store cannot be read or written."""


class TrainingError(PipelineError):
    """A training job ended without a model."""


class ClusterError(PipelineError):
    """The Kubernetes cluster cannot be asked, or refuses."""

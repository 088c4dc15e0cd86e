"""Train: the launcher of the training job and the trainer that runs inside it."""

"""Running a training job: what a worker is told, how it is started, and how it ends."""

"""The pipelines, their recipes, and the command line that runs, compiles and explains them."""

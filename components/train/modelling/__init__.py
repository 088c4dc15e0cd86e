"""The model: loaded, sharded, adapted, optimised, exported."""

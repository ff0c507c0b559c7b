"""Hydra's sweeper plugin `hydra/sweeper=optuna`."""

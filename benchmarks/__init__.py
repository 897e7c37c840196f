"""What Broadway costs, measured beside something of the same kind in the same run. `python -m benchmarks` runs all."""

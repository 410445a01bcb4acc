"""What a check costs, measured: `scripts/bench`. Ratios within one run are what counts; machines are noisy."""

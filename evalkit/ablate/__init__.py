"""The ablation runner: baseline and variants trained alike, sampled on the same prompts, scored, compared."""

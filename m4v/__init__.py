"""The video models: configured, trained, sampled, counted. Nothing of it is here yet; `evalkit` judges any videos."""

"""The video models: configured, built, trained, sampled, counted; `evalkit` judges what they and any others make."""

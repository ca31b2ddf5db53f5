"""Finished runs, told to the trackers that teams use already: TensorBoard's files and MLflow's store.

`read_entry` turns a run directory into an `Entry`, which knows no tracker; `tensorboard.write` and `mlflow.Store` write
it through the trackers' own libraries. Names of numbers, in both:

    score/D, ci95_low/D, ci95_high/D    of dimension D, as fractions; `lite/...` stays `lite/...`
    scored/D, unscored/D                videos that count, and videos that do not
    headline/H                          headline scores in percent
    missing/...                         how much has no value: never exported as zero
    train/loss, train/lr, ...           by step, of each variant and seed of an ablation
    delta/M, p_adjusted/M, ...          a variant against the one that it is compared with

Numbers in a reduced precision or of weights that are not the published ones have it in their names.
"""

from evalkit.export.entry import Entry
from evalkit.export.read import read_entry

__all__ = ["Entry", "read_entry"]

"""What a run costs before it is started: GPU-hours, wall time, money and storage, on one GPU or a thousand.

`work` says which videos are scored in what, `rates` how long that takes (`measured` from runs, `stated` where nothing
was measured), `schedule` and `run` how workers share it, `models` what training and sampling add, `storage` what stays
on disk.
"""

from evalkit.budget.order import Machine, Order
from evalkit.budget.plan import Plan, Row, make_plan
from evalkit.budget.record import SCHEMA, to_json
from evalkit.budget.words import notes

__all__ = ["SCHEMA", "Machine", "Order", "Plan", "Row", "make_plan", "notes", "to_json"]

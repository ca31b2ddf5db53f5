"""How long a forward pass takes and how much memory it needs, on this machine, with an interval for every comparison.

`subjects` says what is timed, `measure` loads and times it, `record` keeps the result, `against` compares two of them.
No time without its hardware: it is part of the record, and records of other hardware are not compared.
"""

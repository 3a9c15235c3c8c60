"""Everything goes wrong at random for minutes: a supervisor, services under load, faults, and an observer.

`python -m tests.chaos --seed 7 --minutes 10`. The seed decides which fault comes when, to whom, how long.
"""

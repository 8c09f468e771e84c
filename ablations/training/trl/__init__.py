"""Adapter to TRL 1.16, the only code that imports it: training on conversations and on preferences.

    reference.py     log-probabilities of a DPO round's reference, computed once
    rank.py          the work of one rank's worker process

TRL is given finished rows and a fixed order (``training/rows``). Left to itself it drops and cuts rows by
their length without a count, mixes sources by drawing, and reads the reference from the disk by the model's
name.

Importing this package does not import TRL.
"""

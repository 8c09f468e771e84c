"""Adapter to TRL 1.16, the only code that imports it: training on conversations and on preferences.

    trl_trainer.py   TrlTrainer, which trains a job in worker processes
    start_model.py   the model that a training begins from, with rows for the markers of turns
    row_feed.py      the rows of a training in their order, and what of them was read
    reference.py     log-probabilities of a DPO round's reference, computed once
    steps.py         what TRL's trainers do otherwise here: rate, rows of the log, checkpoints, divergence
    rank.py          the work of one rank's worker process

TRL is given finished rows and a fixed order. Left to itself it drops and cuts rows by their length without a
count, mixes sources by drawing, and reads the reference from the disk by the model's name.

Importing this package does not import TRL.
"""

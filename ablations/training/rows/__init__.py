"""Training on rows with the Trainer of transformers, as far as all methods on rows share it.

    row_trainer.py   RowTrainer, which trains a job in worker processes
    row_feed.py      the rows of a training in their order, and what of them was read
    start_model.py   the language model that a training begins from, with rows for markers
    steps.py         what a Trainer does otherwise here: rate, rows of the log, checkpoints, divergence
    row_rank.py      the frame of one rank's work, and the arguments of its Trainer

``trl`` adds SFT and DPO, ``vlm`` rows with pictures. Importing this package imports neither torch nor
transformers.
"""

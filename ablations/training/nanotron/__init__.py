"""The adapter: the only code that knows nanotron 0.4.

    compat.py   makes the released package importable, and usable without CUDA
    model.py    a Llama made of its parallel layers, batch first, torch's own attention
    config.py   a TrainJob in nanotron's words
    engine.py   its DistributedTrainer, with our schedule, checkpoints and bookkeeping
    trainer.py  NanotronTrainer: the Trainer interface, in worker processes

Importing this package imports nothing of nanotron; ``compat`` does, once, where a worker asks.
"""

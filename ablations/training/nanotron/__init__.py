"""Adapter to nanotron 0.4, the only code that imports it.

    compat.py            makes the released package importable, and usable without CUDA
    decoder.py           a Llama of its parallel layers, batch first, with torch's own attention
    nanotron_config.py   its Config, made from a TrainJob
    engine.py            its DistributedTrainer, with our schedule, checkpoints and logs
    optimizer_step.py    one optimiser step
    rank.py              the work of one rank's worker process
    outcome.py           the lock of a run's training, and the outcome of a training
    nanotron_trainer.py  NanotronTrainer, which trains a job in worker processes

Importing this package does not import nanotron; a worker imports it once, through ``compat``.
"""

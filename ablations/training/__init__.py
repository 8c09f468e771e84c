"""Training: what a model and a training are, the trainer behind one interface, checkpoints, export.

Values, without torch: ``specs`` (ModelSpec, TrainingSpec, ExecutionSpec), ``plan`` (what fits
together, micro-batches), ``trainer`` (TrainJob in, TrainOutcome out), ``start`` (where a job begins),
``checkpoints`` (which are whole, which may go).

Work: ``worker`` (the processes that train), ``nanotron`` (the adapter, alone in knowing nanotron 0.4),
``export`` (checkpoint to transformers), and what they share: ``feed``, ``packing``, ``loss``,
``initial``, ``lean``, ``health``, ``logbook``.
"""

"""Training: what a model and a training are, the trainer behind one interface, checkpoints, export.

Without torch: ``specs`` (ModelSpec, TrainingSpec, ExecutionSpec), ``memory`` and ``batching`` (micro-batches
that fit a device), ``train_job`` (TrainJob in, TrainOutcome out), ``resume`` (the start of a job),
``checkpoints`` (which are complete, which may be deleted), ``run_logger`` (metrics and events).

With torch: ``training_process`` (worker processes), ``nanotron`` (the adapter, the only code that imports
nanotron 0.4), ``export`` (checkpoint to transformers), ``placement`` (device and threads), ``dataloader``,
``packing``, ``loss``, ``initial_weights``, ``fast_optimizer``, ``loss_monitor``, ``async_metrics``.
"""

"""Training: what a model and a training are, the trainer behind one interface, checkpoints, export.

specs.py        ModelSpec, TrainingSpec, ExecutionSpec: plain values, no torch
trainer.py      TrainJob in, TrainOutcome out: the ``Trainer`` protocol
worker.py       the process that trains, and the one that waits for it
nanotron/       the adapter: the only code that knows nanotron 0.4
checkpoints.py  which checkpoints are whole, which may go
export.py       checkpoint → a transformers Llama folder
"""

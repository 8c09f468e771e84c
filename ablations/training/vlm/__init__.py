"""Training of vision-language models on rows with pictures, by the Trainer of transformers.

    vlm_trainer.py   VlmTrainer, which trains a job in worker processes
    vision_start.py  the model that a training begins from, with a fresh vision part where it has none
    picture_feed.py  rows with pictures, conversations and text in one order, as the model takes them
    rank.py          the work of one rank's worker process
    text_part.py     the language model inside a checkpoint, as a folder of its own

Checkpoints are transformers folders of ``SmolVLMForConditionalGeneration``. Importing this package imports
neither torch nor transformers.
"""

"""Several proxies of one shape, trained as one batched model: a swarm of small models fills a GPU.

jobs (same shape, training and steps; own mixture, seed, folder)
  ─▶ weights stacked [proxy, …], one batched matrix product where each alone would launch a small one
  ─▶ the run folders that nanotron would have written: rows, checkpoints, outcome of each

model.py   the stacked network      optimizer.py   clipping and AdamW, each proxy by itself
group.py   the worker's loop        trainer.py     train_together: what a caller calls
"""

"""Programs that launch several runs: annealing arms, and stages searched one after the other."""

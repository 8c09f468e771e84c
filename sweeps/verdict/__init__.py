"""Verdict on a study: winner, tie or keep the baseline, with its evidence.

study_observations, published   read a study or a published table into observations
training_noise, item_noise      the two parts of the noise of a difference
contrasts                       all differences between candidates at once
decision                        the rule and its error rate
power                           seeds or items that a tie needs
task_quality, task_effects      quality of each metric; comparison metric by metric
transfer                        ranking at one proxy against the ranking at another
decide                          all of it together
verdict_record, render          the verdict on disk and on a terminal
"""

"""The verdict on a study: winner, tie or keep the baseline, and everything it rests on.

observations   what was seen: runs, tasks, items            study, published   where it came from
noise items    training noise and item noise                contrasts          all differences at once
decision       the rule and its error rate                  power              what would settle a tie
signal         which tasks can tell candidates apart        transfer           small against large
decide         all of it together                           record render      the verdict, kept and shown
"""

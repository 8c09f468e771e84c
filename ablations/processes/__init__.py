"""Processes that do the work of another: a warm server, the children it forks, and how they end.

    caller ──socket──▶ warm server (modules imported, idle) ──fork──▶ child: one call, one answer

Training, scoring, the ranks of a preparation and the jobs of the local launcher are such children. A fork
is as isolated as a new process and saves the imports: torch and nanotron take 2 CPU-seconds, lighteval 11.
multiprocessing's forkserver is not used: it imports the caller's ``__main__`` again, and has one list of
modules per process.
"""

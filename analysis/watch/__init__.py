"""A study while it runs, read from its folders: nothing is asked of the processes that work on it."""

"""Slots: the devices of one machine, one run on each at a time.

driver ──job──▶ slot 0: GPU 0 ──fork──▶ run        ┐  each a fresh process, forked from a server
       ──job──▶ slot 1: GPU 1 ──fork──▶ run        ┘  that imported torch and lighteval once
"""

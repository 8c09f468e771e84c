"""Rows: samples that are not windows of a text but conversations or pairs of answers, of any length.

    row_specs.py      what a source of rows is (part of ``SourceSpec``)
    chat_template.py  markers and template of a chat tokenizer
    samples.py        conversations and preferences, read from the columns of a data set and checked
    rendering.py      a sample as tokens, with a mask of the tokens that are answers, and as held-out items
    row_pipeline.py   the steps of ``prepare`` that differ from those of text
    row_store.py      the prepared rows, memory-mapped

A row store has the files of a token store (``ablations.data.store``): a row is a document, and datatrove's
``.loss`` file beside the tokens is the mask. So checksums, held-out text, identity and the Slurm jobs of
``prepare`` are those of every store.
"""

"""Exports: a promotion, a run or a config in the files that another trainer loads.

    promotion ┐
    run       ├─▶ ExportPlan ─▶ one module a format ─▶ exports/<name>-<format>/
    config    ┘   (origin)      (registry)             written whole or not at all (writing)

    megatron      indexed dataset (.bin, .idx) and a blend for each stage
    olmo-core     token files (.npy) and a source mixture for each stage
    litdata       chunks, and datasets with weights for each stage; litgpt reads the same
    mosaicml      MDS shards, and streams with proportions for each stage
    torchtitan    token files, and a module that registers them
    nanotron      the chain of files of its main branch, and token files
    weights       the schedule alone, as YAML and as JSON

Nothing here imports another trainer; the tests do, in an environment of their own (docs/export.md).
"""

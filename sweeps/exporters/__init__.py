"""Export a promotion, a run or a config as files that another trainer loads.

    promotion ┐
    run       ├─▶ ExportPlan ─▶ one module per format ─▶ exports/<name>-<format>/
    config    ┘   (origin)      (formats)              written atomically (export_folder)

    megatron      indexed dataset (.bin, .idx) and a blend for each stage
    olmo-core     token files (.npy) and a source mixture for each stage
    litdata       chunks, and datasets with weights for each stage; litgpt reads the same
    mosaicml      MDS shards, and streams with proportions for each stage
    torchtitan    token files, and a module that registers them
    nanotron      the chain of files of its main branch, and token files
    weights       only the schedule, as YAML and as JSON

Nothing here imports another trainer; the tests do, in a separate environment (docs/export.md).
"""

"""torchtitan: token files, and a module that registers them with its interleaving text loader.

torchtitan 0.3 tokenises text as it trains and has no reader of token files. Its
``InterleavedHuggingFaceTextDataLoader`` draws the source of each sequence by weight. The export's
``stored_tokens.py`` (a copy of ``sweeps/exporters/for_torchtitan.py``) registers each source as a
dataset of tokenised documents, with a tokenizer that returns the tokens unchanged.
"""

from __future__ import annotations

from pathlib import Path

from ablations.files import write_json, write_text
from sweeps.exporters.export_plan import Export
from sweeps.exporters.tokens import place_file, place_index

__all__ = ["usage", "write"]

_MODULE = Path(__file__).with_name("for_torchtitan.py")


def write(export: Export, folder: Path) -> None:
    """Write the token files, the module and the stages' weights."""
    if export.tokens != "none":
        for source in export.sources.values():
            target = folder / "tokens" / source.slug
            target.mkdir()
            for number, file in enumerate(source.files):
                path = target / f"{number:05d}.ds"
                place_file(source, file, path, export.tokens)
                place_index(source, file, path.with_name(f"{path.name}.index"))
    write_text(folder / "stored_tokens.py", _MODULE.read_text())
    described = {
        "token_bytes": export.token_bytes,
        "eos_id": export.eos_id,
        "vocab_size": export.plan.config.model.vocab_size,
        "sources": {
            name: export.path("tokens", source.slug) for name, source in export.sources.items()
        },
    }
    write_json(folder / "sources.json", described)
    for stage in export.plan.stages:
        content = {
            "weights": dict(stage.weights),
            "seed": export.plan.config.seed,
            "seq_len": export.plan.schedule.sequence_length,
            "global_batch_size": export.plan.schedule.batch_size,
            "steps": stage.last_step - stage.first_step + 1,
        }
        write_json(folder / "stages" / f"{stage.stem}.json", content)


def usage(export: Export) -> str:
    """Return instructions for reading a stage with torchtitan, and its limits."""
    first = export.plan.stages[0].stem
    return f"""
With this folder on the Python path:

    import stored_tokens
    config.dataloader = stored_tokens.dataloader("{first}")   # an InterleavedHuggingFaceTextDataLoader.Config
    config.tokenizer = stored_tokens.tokenizer()              # passes tokens on

What torchtitan (0.3) cannot do: it draws the source of each sequence at random, so the shares come near
the weights as sequences grow (within 0.1% from about a million). The weights of a training are fixed, so
each stage is a training of its own that starts from the checkpoint before. It never trains the first token
of a document, so token {export.eos_id} is put before each, as it stands in the stores. The learning rate is
yours to set; `export.json` holds it.
"""

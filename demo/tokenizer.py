"""A small lower-casing byte-level BPE tokenizer trained on the demo's captions; it can spell any text."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CONTEXT_LENGTH = 32
MAX_ENTRIES = 800
PAD, START, END = "<pad>", "<start>", "<end>"


def build_tokenizer(
    captions: list[str], *, entries: int = MAX_ENTRIES, context_length: int = CONTEXT_LENGTH
) -> PreTrainedTokenizerFast:
    """Train the tokenizer; its alphabet is all 256 bytes, so no text is ever unknown.

    The end token is added last to have the highest id, where open_clip's default pooling (`argmax`) looks for
    it. Padding follows it, hidden by the causal mask.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries - 1,
        special_tokens=[PAD, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (START, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        model_max_length=context_length,
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(folder: Path, captions: list[str], **sizes: int) -> int:
    """Train the tokenizer on `captions`, save it into a model folder and return its number of entries."""
    tokenizer = build_tokenizer(captions, **sizes)
    tokenizer.save_pretrained(folder)
    # transformers 5 writes a class of its own that 4 cannot load; both know this one.
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config.pop("backend", None)
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    # Without it, 4 overrides the pre-tokenizer's own setting and splits the first word differently.
    config["add_prefix_space"] = True
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return len(tokenizer)
